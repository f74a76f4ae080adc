"""Bytes in, bytes out: one folder for every way into the platform. Doors never import each other."""
