"""Taps, one nftables table per instance, and what is known of the host's own firewall."""
