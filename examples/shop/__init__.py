"""What the shop in Django and the shop in Flask have in common."""
