"""Tokens that people sign with their own SSH keys: what they say, and whether they are good."""
