"""The bundled demo models: their data, training and jobs."""
