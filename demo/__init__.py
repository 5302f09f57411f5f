"""The bundled demo models: their world, how they were trained, and their jobs."""
