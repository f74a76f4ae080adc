"""Ports, visibility, and what edges are told."""
