"""What the kernel keeps for us: the segment, its lock, who is attached and who runs the pool."""
