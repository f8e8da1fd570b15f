"""`replswitch.connect`, which returns a DB-API connection to a master and its slaves."""
