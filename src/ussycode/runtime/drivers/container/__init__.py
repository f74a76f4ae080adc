"""The container driver: the host's own kernel behind namespaces, for hosts where VMs are too slow."""
