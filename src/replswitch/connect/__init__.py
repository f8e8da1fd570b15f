"""`replswitch.connect`: a DB-API connection that follows its switch."""
