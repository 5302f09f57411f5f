"""Metrics of a model before and after unlearning."""
