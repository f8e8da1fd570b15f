"""A process that serves the shop."""

from __future__ import annotations

from django.core.signals import got_request_exception
from django.core.wsgi import get_wsgi_application

from applications.serving import given, note, serve
from applications.shop_project import set_up

if __name__ == "__main__":
    set_up(given())
    got_request_exception.connect(note)
    serve(get_wsgi_application())
