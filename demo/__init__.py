"""The bundled demo models: their vocabulary, their training and their jobs."""
