"""Servers fail and change places under an application with eight visitors: what must not happen, counted."""
