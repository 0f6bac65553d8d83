"""What `millrace bench` runs: measurements of whole pipelines beside bare loops and plain Faust."""
