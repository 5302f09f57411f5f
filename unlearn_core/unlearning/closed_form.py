"""The closed-form edits behind one run."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping

import torch
from torch import Tensor

from ..dataset.rows import TrainingSets
from ..foundation.progress import Progress
from ..models.protocol import ModelHandle
from ..prompts.pairs import PromptPairs
from .alarms import Alarm
from .case import case_edits
from .plan import Plan
from .results import StepReport, UnlearnedModel
from .settings import CASE, SPEED, UCE, UnlearnSettings
from .speed import speed_edits
from .uce import edits

Edit = Callable[[ModelHandle, PromptPairs, UnlearnSettings, Progress], dict[str, Tensor]]


def _uce(
    base: ModelHandle, pairs: PromptPairs, settings: UnlearnSettings, progress: Progress
) -> dict[str, Tensor]:
    return edits(base, pairs, settings.retain_weight, settings.uce_tokens, progress)


EDITS: Mapping[str, Edit] = {UCE: _uce, SPEED: speed_edits, CASE: case_edits}
"""Method -> the weights after its edit, by name. An edit raises ValueError if the model lacks these
weights."""


class ClosedForm:
    """One immediate edit, without step reports. ``base`` is never changed.

    Raises:
        ValueError: the model has no weights that read the prompt.
    """

    plan, whole = Plan(), True

    @torch.no_grad()
    def __init__(
        self,
        base: ModelHandle,
        sets: TrainingSets,
        settings: UnlearnSettings,
        progress: Progress | None = None,
    ) -> None:
        self.base, self.sets, self.settings = base, sets, settings
        self.alarms: list[Alarm] = []  # one edit cannot go wrong
        edited = EDITS[settings.method](base, sets.pairs, settings, progress or Progress())
        self.model = base.trainable_copy(list(edited))
        weights = dict(self.model.named_parameters())
        for name, weight in edited.items():
            weights[name].requires_grad_(False).copy_(weight)

    def __len__(self) -> int:
        return 0

    def __iter__(self) -> Iterator[StepReport]:
        return iter(())

    def end_early(self) -> None:
        """There are no steps to leave out."""

    def result(self) -> UnlearnedModel:
        return UnlearnedModel(self.model, self.base, self.sets.pairs, self.settings, ())
