"""Shared basics: settings fields and checks, atomic writes, safetensors files, pixels."""
