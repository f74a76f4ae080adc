"""What a guest is told of itself at 169.254.169.254; who asks is known by its address, which cannot be forged."""
