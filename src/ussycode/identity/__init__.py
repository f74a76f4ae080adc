"""Accounts, SSH keys, browser sessions and sign-in links."""
