"""The guest program's host side: build it, put it into an initrd, speak with it."""
