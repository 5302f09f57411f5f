"""What is asked for, with and without the concept."""
