"""Images: recipes, building them from the host's own Debian archive, and the store they are published in."""
