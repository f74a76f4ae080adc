"""Disks of the format qcow2 read and written without QEMU: a guest may have written every byte of them."""
