"""Errors of models that cannot be loaded or do not support an operation."""

PICKLES = (".ckpt", ".pt", ".pth", ".bin", ".pkl")


class ModelError(ValueError):
    """A model cannot be loaded; the message describes the file and names the supported kinds."""


class UnsupportedError(ValueError):
    """This family of models, or this installation, does not support an operation."""
