"""Make a text-to-image model forget a concept and keep the rest.

The mathematics needs two gradients and nothing else:

>>> import torch
>>> from unlearn_core import combine, gram, restricted
>>> grad_forget, grad_retain = torch.tensor([1.0, 0.0]), torch.tensor([-1.0, 1.0])
>>> products = gram([grad_forget], [grad_retain])  # lists: a model has many parameters
>>> products.conflict
True
>>> coefficients = restricted(products, retain_weight=1.0)
>>> combine(grad_forget, grad_retain, coefficients)  # no negative product with either gradient
tensor([0.5000, 1.5000])

``unlearn_core.job.job.Job`` does a complete run, from a model folder to a saved model.
"""

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
