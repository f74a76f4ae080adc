"""Concrete drivers; chosen only by the composition root."""
