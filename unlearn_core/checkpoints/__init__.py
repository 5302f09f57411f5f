"""Saving what was unlearned."""

from .diffusers_folder import save_diffusers_folder

__all__ = ["save_diffusers_folder"]
