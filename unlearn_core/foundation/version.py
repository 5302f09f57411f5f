"""The version of the pack, the same as in `pyproject.toml`."""

VERSION = "0.4.0"
