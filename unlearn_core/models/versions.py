"""Differences between the supported versions of a library."""

from __future__ import annotations


def dtype_argument() -> str:
    """The name of ``from_pretrained``'s argument for the dtype, which transformers has renamed."""
    import transformers
    from packaging.version import Version

    return "dtype" if Version(transformers.__version__) >= Version("4.56") else "torch_dtype"
