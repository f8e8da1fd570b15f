"""What the shops have in common."""
