"""Training pictures, drawn by the model or supplied by the user."""
