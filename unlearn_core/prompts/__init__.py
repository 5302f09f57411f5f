"""Concepts, and pairs of prompts with and without them."""
