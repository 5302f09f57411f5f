"""The pictures that a model learns from, drawn by itself or a person's own."""
