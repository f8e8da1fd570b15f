"""What replswitch counts and shows: counters, Prometheus, OpenTelemetry, and a log line for each request."""
