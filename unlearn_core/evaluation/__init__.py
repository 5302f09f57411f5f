"""Judging a model before and after."""

from .evaluate import AlignmentReport, Comparison, Metrics, evaluate

__all__ = ["AlignmentReport", "Comparison", "Metrics", "evaluate"]
