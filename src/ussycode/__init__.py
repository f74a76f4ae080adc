"""ussycode: persistent Linux VMs over SSH and HTTPS, self-hosted."""
