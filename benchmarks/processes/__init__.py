"""Application servers that fork: `command.py` says what is done, and what must not be."""
