"""Real applications (django-oscar, ihatemoney, FlaskBB) and a package's tests, with the stock engine and with ours."""
