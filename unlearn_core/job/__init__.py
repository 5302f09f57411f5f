"""Complete jobs from a settings file, and the command line."""
