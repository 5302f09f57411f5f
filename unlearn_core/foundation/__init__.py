"""Checks, settings fields, atomic writes, safetensors files and pixels."""
