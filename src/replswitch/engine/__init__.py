"""The engine decides which server runs a statement, and what happens after a failure. Every binding uses it.

A binding implements `replswitch.engine.port.Port`, and asks a `replswitch.engine.route.Route` for each statement.
"""
