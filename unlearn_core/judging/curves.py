"""Recovery curves: how often an attack brings the concept back, by the attack's effort."""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from typing import Protocol

from torch import Tensor

from ..dataset.drawing import LatentCache, draw_latents, draw_pictures
from ..foundation.progress import Progress
from ..models.protocol import ModelHandle
from ..prompts.pairs import PromptPair, PromptPairs
from ..unlearning.results import UnlearnedModel
from .evaluators import Evaluators
from .settings import ProbeSettings

STEPS, NOISE = "steps", "% noise"


@dataclass(frozen=True, eq=False)
class Target:
    """A model under attack, and the attacker's material.

    Attributes:
        base: the model that knows the concept; it draws the attacker's pictures.
        cache: for the pictures of ``base``.
        progress: checked often; it does not tick.
    """

    model: ModelHandle
    base: ModelHandle
    pairs: PromptPairs
    settings: ProbeSettings
    cache: LatentCache | None = None
    progress: Progress = field(default_factory=Progress)

    @property
    def seed(self) -> int:
        return self.settings.generation.seed

    @property
    def tests(self) -> list[PromptPair]:
        """As many test pairs as pictures are judged; they repeat with other seeds."""
        return list(itertools.islice(itertools.cycle(self.pairs.test), self.settings.pictures))

    def examples(self, count: int, *, retain: bool = False) -> tuple[list[PromptPair], Tensor]:
        """Pictures of ``base`` from the training prompts, and these prompts' pairs.

        Args:
            count: number of pictures. If there are fewer prompts, they repeat with other seeds.
            retain: draw the prompts without the concept.
        """
        pairs = list(itertools.islice(itertools.cycle(self.pairs.train), count))
        prompts = [pair.retain if retain else pair.forget for pair in pairs]
        return pairs, draw_latents(
            self.base,
            prompts,
            self.settings.generation,
            cache=self.cache,
            progress=self.progress,
        )

    def attempt(
        self, model: ModelHandle, prompts: Sequence[str], effort: int, label: str
    ) -> Attempt:
        """Pictures of an attacked model."""
        # A trained model has the fingerprint of the loaded one, but produces other pictures.
        cache = self.cache if model is self.base else None
        pictures = draw_pictures(
            model, prompts, self.settings.generation, cache=cache, progress=self.progress
        )
        return Attempt(effort, label, tuple(prompts), pictures)


@dataclass(frozen=True, eq=False)
class Attempt:
    """The pictures of one attempt to bring the concept back.

    Attributes:
        effort: in the unit of the attack.
        label: the effort in words, such as "after 60 steps of training on 10 pictures".
        prompts: of the pictures.
        pictures: uint8 [N, 3, H, W].
    """

    effort: int
    label: str
    prompts: tuple[str, ...]
    pictures: Tensor


class Attack(Protocol):
    """A way to bring the concept back."""

    @property
    def name(self) -> str: ...

    @property
    def unit(self) -> str:
        """What its effort counts: ``STEPS`` or ``NOISE``."""
        ...

    @property
    def efforts(self) -> tuple[int, ...]:
        """The efforts at which it is judged, ascending."""
        ...

    def attempts(self, target: Target) -> Iterator[Attempt]:
        """One attempt for each of the efforts.

        Raises:
            UnsupportedError: the model does not support this attack.
        """
        ...


@dataclass(frozen=True)
class Point:
    """One effort of an attack.

    Attributes:
        effort, label: as in ``Attempt``.
        shown_before: number of pictures with the concept if the model before unlearning is attacked
            in the same way; None if no evaluator can judge.
        shown_after: the same for the unlearned model.
    """

    effort: int
    label: str
    shown_before: int | None
    shown_after: int | None


@dataclass(frozen=True, eq=False)
class Curve:
    """The result of an attack.

    Attributes:
        name, unit: of the attack.
        points: by ascending effort.
        prompts: the prompts of ``pictures``.
        pictures: of the unlearned model at the ``worst`` point, uint8 [N, 3, H, W].
    """

    name: str
    unit: str
    points: tuple[Point, ...]
    prompts: tuple[str, ...]
    pictures: Tensor

    @property
    def worst(self) -> Point:
        """The point with the most pictures of the concept after unlearning; the last of equals."""
        return max(self.points, key=lambda point: (point.shown_after or 0, point.effort))

    def at(self, effort: int) -> Point | None:
        return next((point for point in self.points if point.effort == effort), None)


def shown(
    attack: Attack, target: Target, evaluators: Evaluators
) -> Iterator[tuple[Attempt, int | None]]:
    """Each attempt, with the number of its pictures that show the concept; None if no evaluator can
    judge."""
    concept = target.pairs.concept
    for attempt in attack.attempts(target):
        seen = evaluators.look(concept, attempt.pictures, attempt.prompts, target.progress)
        shows = seen.shows(concept)
        yield attempt, None if shows is None else sum(shows)


def run_curve(
    attack: Attack,
    unlearned: UnlearnedModel,
    evaluators: Evaluators,
    settings: ProbeSettings,
    *,
    cache: LatentCache | None = None,
    progress: Progress | None = None,
) -> Curve:
    """Attack the unlearned model, and its base for comparison, for the concept of
    ``unlearned.pairs``. Further concepts in ``unlearned.pairs.also`` are ignored.

    Raises:
        UnsupportedError: the model does not support this attack.
    """
    base = unlearned.base
    inner = (progress or Progress()).silent()
    target = Target(base, base, unlearned.pairs, settings, cache, inner)
    before = {attempt.effort: count for attempt, count in shown(attack, target, evaluators)}
    points: list[Point] = []
    worst: Attempt | None = None
    most = -1
    for attempt, after in shown(attack, replace(target, model=unlearned.model), evaluators):
        points.append(Point(attempt.effort, attempt.label, before[attempt.effort], after))
        if (after or 0) >= most:
            most, worst = after or 0, attempt
    assert worst is not None, "an attack has at least one effort"
    return Curve(attack.name, attack.unit, tuple(points), worst.prompts, worst.pictures)
