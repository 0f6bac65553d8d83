"""What runs together: settings, an app for each consumer group, web views, the command line."""
