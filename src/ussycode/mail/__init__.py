"""Mail that the platform sends: spooled with the change that caused it, delivered by a relay or kept to be read."""
