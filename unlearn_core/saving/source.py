"""The file or folder that a model was loaded from, of which a saved model is a changed copy."""

from __future__ import annotations

from pathlib import Path


def require_source(source: Path) -> None:
    """Check that the model has not been moved since it was loaded.

    Raises:
        FileNotFoundError: it is no longer there.
    """
    if not source.exists():
        raise FileNotFoundError(
            f"save_as: {source.name!r}, from which the model was loaded, is no longer there; put "
            "it back, or save a LoRA"
        )
