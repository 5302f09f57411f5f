"""Judging a model before and after."""

from .evaluate import evaluate
from .results import AlignmentReport, Comparison, Metrics

__all__ = ["AlignmentReport", "Comparison", "Metrics", "evaluate"]
