"""Domains of their owners on VMs: claimed, proven by DNS, served, and given certificates."""
