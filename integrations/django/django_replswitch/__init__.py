"""replswitch for Django: backends, a middleware, decorators, session engines, system checks and a command."""
