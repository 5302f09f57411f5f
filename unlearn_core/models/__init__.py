"""Model families behind one protocol."""

from .load import ModelError, load_model
from .protocol import Conditioning, ModelHandle, ModelInfo

__all__ = ["Conditioning", "ModelError", "ModelHandle", "ModelInfo", "load_model"]
