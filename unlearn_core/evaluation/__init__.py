"""What is counted of a model before and after."""
