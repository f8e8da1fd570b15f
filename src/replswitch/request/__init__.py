"""What happens to one request, whatever the framework: its state, its marker, its headers."""
