"""Probes: attempts to bring the concept back after unlearning."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from torch import Tensor

from ..dataset.drawing import LatentCache, draw_latents, draw_pictures
from ..foundation.progress import Progress
from ..models.protocol import ModelHandle
from ..prompts.concept import ForgetConcept
from ..prompts.pairs import PromptPair
from ..unlearning.results import UnlearnedModel
from .evaluators import Evaluators
from .relearning import PLACEHOLDER, invert, relearn
from .settings import ProbeSettings
from .wordings import long_prompts, misspellings, paraphrases


@dataclass(frozen=True, eq=False)
class ProbeResult:
    """The result of a probe.

    Attributes:
        name: of the probe.
        shown_before: number of pictures with the concept if the base model is probed in the same
            way; None if no evaluator can judge. If it is 0, the probe fails even there and proves
            nothing.
        shown_after: the same for the unlearned model.
        prompts: the prompts of the pictures.
        pictures: of the unlearned model, uint8 [N, 3, H, W].
    """

    name: str
    shown_before: int | None
    shown_after: int | None
    prompts: tuple[str, ...]
    pictures: Tensor

    @property
    def before(self) -> float | None:
        """The share before, 0..1."""
        return None if self.shown_before is None else self.shown_before / len(self.prompts)

    @property
    def after(self) -> float | None:
        """The share after, 0..1."""
        return None if self.shown_after is None else self.shown_after / len(self.prompts)


@dataclass(frozen=True, eq=False)
class Attempt:
    """The model and the prompts with which a probe tries to bring the concept back."""

    model: ModelHandle
    prompts: Sequence[str]


Probe = Callable[[UnlearnedModel, ProbeSettings, "LatentCache | None", Progress], Attempt]


def run_probe(
    name: str,
    unlearned: UnlearnedModel,
    evaluators: Evaluators,
    settings: ProbeSettings,
    *,
    cache: LatentCache | None = None,
    progress: Progress | None = None,
) -> ProbeResult:
    """Probe the unlearned model, and its base for comparison, for the concept of
    ``unlearned.pairs``. Further concepts in ``unlearned.pairs.also`` are ignored.

    Args:
        name: one of ``PROBES``.
        cache: for the base model's pictures.
        progress: checked often; it does not tick.

    Raises:
        UnsupportedError: the model does not support this probe.
        ValueError: an unknown probe.
    """
    if name not in PROBES:
        raise ValueError(f"probe must be one of {', '.join(PROBES)}, got {name!r}")
    inner = (progress or Progress()).silent()
    counts: list[int | None] = []
    attempt, pictures = None, None
    original = UnlearnedModel(
        unlearned.base, unlearned.base, unlearned.pairs, unlearned.settings, ()
    )
    for subject in (original, unlearned):
        attempt = PROBES[name](subject, settings, cache, inner)
        # A model trained by a probe has the base's fingerprint, but produces other pictures.
        base_cache = cache if attempt.model is unlearned.base else None
        pictures = draw_pictures(
            attempt.model, attempt.prompts, settings.generation, cache=base_cache, progress=inner
        )
        concept = unlearned.pairs.concept
        shows = evaluators.look(concept, pictures, attempt.prompts, inner).shows(concept)
        counts.append(None if shows is None else sum(shows))
    assert attempt is not None
    assert pictures is not None
    return ProbeResult(name, counts[0], counts[1], tuple(attempt.prompts), pictures)


def _test_pairs(unlearned: UnlearnedModel, settings: ProbeSettings) -> list[PromptPair]:
    return list(itertools.islice(itertools.cycle(unlearned.pairs.test), settings.pictures))


def _rewording(rewrite: Callable[[ForgetConcept, Sequence[PromptPair]], list[str]]) -> Probe:
    def probe(
        unlearned: UnlearnedModel,
        settings: ProbeSettings,
        cache: LatentCache | None,
        progress: Progress,
    ) -> Attempt:
        pairs = _test_pairs(unlearned, settings)
        return Attempt(unlearned.model, rewrite(unlearned.pairs.concept, pairs))

    return probe


def _examples(
    unlearned: UnlearnedModel,
    settings: ProbeSettings,
    cache: LatentCache | None,
    progress: Progress,
) -> tuple[list[PromptPair], Tensor]:
    """Pictures of the concept from the model before unlearning. If there are more pictures than
    prompts, prompts repeat with other seeds."""
    pairs = list(itertools.islice(itertools.cycle(unlearned.pairs.train), settings.examples))
    prompts = [pair.forget for pair in pairs]
    return pairs, draw_latents(
        unlearned.base, prompts, settings.generation, cache=cache, progress=progress
    )


def _relearning(
    unlearned: UnlearnedModel,
    settings: ProbeSettings,
    cache: LatentCache | None,
    progress: Progress,
) -> Attempt:
    pairs, latents = _examples(unlearned, settings, cache, progress)
    model = relearn(
        unlearned,
        latents,
        [pair.forget for pair in pairs],
        steps=settings.steps,
        seed=settings.generation.seed,
        at_once=settings.generation.batch_size,
        progress=progress,
    )
    return Attempt(model, [pair.forget for pair in _test_pairs(unlearned, settings)])


def _inversion(
    unlearned: UnlearnedModel,
    settings: ProbeSettings,
    cache: LatentCache | None,
    progress: Progress,
) -> Attempt:
    concept = unlearned.pairs.concept
    pairs, latents = _examples(unlearned, settings, cache, progress)
    model = invert(
        unlearned.model,
        latents,
        [concept.replaced_in(pair.forget, PLACEHOLDER) for pair in pairs],
        concept.name,
        steps=settings.steps,
        seed=settings.generation.seed,
        at_once=settings.generation.batch_size,
        progress=progress,
    )
    prompts = [
        concept.replaced_in(pair.forget, PLACEHOLDER) for pair in _test_pairs(unlearned, settings)
    ]
    return Attempt(model, prompts)


REWORDINGS: dict[str, Probe] = {
    "paraphrases": _rewording(paraphrases),
    "misspellings": _rewording(misspellings),
    "long prompts": _rewording(long_prompts),
}
PROBES: dict[str, Probe] = {
    **REWORDINGS,
    "textual inversion": _inversion,
    "relearning from ten pictures": _relearning,
}
