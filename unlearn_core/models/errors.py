"""Errors of models: one cannot be opened, or cannot do what is asked of it."""

PICKLES = (".ckpt", ".pt", ".pth", ".bin", ".pkl")


class ModelError(ValueError):
    """A model that cannot be opened; the message says what it is and what would do."""


class UnsupportedError(ValueError):
    """Something that a model of this family, or this installation, has no means for."""
