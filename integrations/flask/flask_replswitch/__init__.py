"""Binds replswitch to Flask. Empty so far: the extension is still to come."""
