"""A whole job from one settings file, and the command line."""
