"""The VM record and its lifecycle intent."""
