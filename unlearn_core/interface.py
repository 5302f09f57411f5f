"""The names that ``unlearn_core`` exports."""

from .dataset.settings import GenerationSettings
from .judging.settings import EvaluationSettings
from .prompts.concept import ForgetConcept
from .prompts.diversify import diversify
from .prompts.pairs import PromptPairs
from .unlearning.loop import Unlearning
from .unlearning.results import StepReport, UnlearnedModel
from .unlearning.rules import Gram, combine, gram, plain_sum, restricted
from .unlearning.settings import UnlearnSettings

__all__ = [
    "EvaluationSettings",
    "ForgetConcept",
    "GenerationSettings",
    "Gram",
    "PromptPairs",
    "StepReport",
    "UnlearnSettings",
    "UnlearnedModel",
    "Unlearning",
    "combine",
    "diversify",
    "gram",
    "plain_sum",
    "restricted",
]
