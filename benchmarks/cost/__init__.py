"""What replswitch costs: time, calls, statements and round trips, each with its limit."""
