"""The files that come out of a run, and those that it resumes from."""
