"""Prompts with and without the concept."""
