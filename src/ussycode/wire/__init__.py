"""Messages between processes; both ends import them."""
