"""The HTTPS edge: decides from memory, then copies bytes between visitors and VMs."""
