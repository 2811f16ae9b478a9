"""What not every site needs."""
