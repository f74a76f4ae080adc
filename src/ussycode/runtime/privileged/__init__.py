"""The small root helper: a dozen typed verbs on a unix socket, nothing parsed from outside."""
