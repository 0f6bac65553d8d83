"""What is decided: one responsibility a file, a pure fold or rule over a batch and the agent around it."""
