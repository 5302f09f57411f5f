"""Evaluation: figures of a model before and after unlearning."""
