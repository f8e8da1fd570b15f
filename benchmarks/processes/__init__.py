"""Applications under servers that fork: gunicorn, uWSGI and waitress."""
