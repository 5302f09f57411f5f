"""What is raised for a model that cannot be opened."""

PICKLES = (".ckpt", ".pt", ".pth", ".bin", ".pkl")


class ModelError(ValueError):
    """A model that cannot be opened; the message says what it is and what would do."""
