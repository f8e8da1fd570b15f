"""``manage.py replswitch``."""
