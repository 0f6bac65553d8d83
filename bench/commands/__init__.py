"""What `millrace bench` offers, one module a measurement: `register(bench)` adds it to the command."""
