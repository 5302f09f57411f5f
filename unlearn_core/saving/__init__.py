"""The output files of a run, and its saved state."""
