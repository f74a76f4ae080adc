"""The SSH door: a lobby for commands, and the way into VMs."""
