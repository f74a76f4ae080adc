"""The control side of HTTP: `/exec`, signing in, the dashboard."""
