"""Machines as QEMU microvms, under KVM where it works and under software emulation elsewhere."""
