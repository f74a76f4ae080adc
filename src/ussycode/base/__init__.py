"""Words and tools every package may use; knows nothing of the product."""
