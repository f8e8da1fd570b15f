"""One statement's way: which server runs it, and what happens after a failure. Every binding uses this engine.

A binding implements `replswitch.engine.port.Port` and asks a `replswitch.engine.route.Route` for each statement.
"""
