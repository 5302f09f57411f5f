"""Saving what was unlearned."""

from .diffusers_folder import save_diffusers_folder
from .lora import SavedLora, save_lora
from .single_file import save_single_file

__all__ = ["SavedLora", "save_diffusers_folder", "save_lora", "save_single_file"]
