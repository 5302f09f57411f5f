"""Evaluators of pictures, and probes that try to bring the concept back."""
