"""replswitch for Django: backends, a middleware, decorators, session engines, system checks and a command."""

from replswitch.checking import require_package

require_package("Django", "5.2", "django")
