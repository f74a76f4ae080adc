"""What is thrown at the edge: requests that two programs could read in two ways, and apps that answer with tricks."""
