"""Basics for all packages: progress, settings fields and checks, atomic writes, safetensors files."""
