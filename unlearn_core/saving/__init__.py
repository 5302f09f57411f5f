"""The output files of a run, and the saved state to resume it from."""
