"""Mail for VMs: whose mailbox an address is, and how a mail gets into the guest."""
