"""A small Django project on a real pair: what the tests of the Django binding have in common."""
