"""Stale reads, and reads on the slave, with replswitch, with other packages and without any."""
