"""A complete job from one settings file, and the command line."""
