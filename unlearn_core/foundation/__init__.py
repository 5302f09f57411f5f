"""Shared basics: progress, settings fields and checks, atomic writes, safetensors files."""
