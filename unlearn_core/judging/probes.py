"""The probes by name, and the one way to run them."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from torch import Tensor

from ..dataset.drawing import LatentCache, draw_latents, draw_pictures
from ..foundation.progress import Progress
from ..models.protocol import ModelHandle
from ..prompts.concept import ForgetConcept
from ..prompts.pairs import PromptPair
from ..unlearning.results import UnlearnedModel
from .relearning import PLACEHOLDER, invert, relearn
from .settings import ProbeSettings
from .wordings import long_prompts, misspellings, paraphrases

if TYPE_CHECKING:  # an evaluation runs probes, and needs this module before its own are there
    from .evaluators import Evaluators


@dataclass(frozen=True, eq=False)
class ProbeResult:
    """What a probe brought back.

    Attributes:
        name: of the probe.
        shown_before: how many of the pictures show the concept when the model before unlearning is
            probed the same way; None where nobody can judge. A probe to which it does not answer
            says nothing.
        shown_after: likewise of the unlearned model.
        prompts: the prompts drawn.
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
class Try:
    """What to draw with which model."""

    model: ModelHandle
    prompts: Sequence[str]


Probe = Callable[[UnlearnedModel, ProbeSettings, "LatentCache | None", Progress], Try]


def run_probe(
    name: str,
    unlearned: UnlearnedModel,
    evaluators: Evaluators,
    settings: ProbeSettings,
    *,
    cache: LatentCache | None = None,
    progress: Progress | None = None,
) -> ProbeResult:
    """Probe the unlearned model, and its base for comparison, for the first of its concepts:
    ``unlearned`` with the ``pairs`` of another one asks for that.

    Args:
        name: one of ``PROBES``.
        cache: for the base model's pictures.
        progress: checked often; it does not tick.

    Raises:
        UnsupportedError: the model has no means for this probe.
        ValueError: no such probe.
    """
    if name not in PROBES:
        raise ValueError(f"probe must be one of {', '.join(PROBES)}, got {name!r}")
    inner = (progress or Progress()).silent()
    counts: list[int | None] = []
    tried, pictures = None, None
    original = UnlearnedModel(
        unlearned.base, unlearned.base, unlearned.pairs, unlearned.settings, ()
    )
    for subject in (original, unlearned):
        tried = PROBES[name](subject, settings, cache, inner)
        # A model that a probe has changed shares its base's fingerprint, but draws other pictures.
        plain = cache if tried.model is unlearned.base else None
        pictures = draw_pictures(
            tried.model, tried.prompts, settings.generation, cache=plain, progress=inner
        )
        concept = unlearned.pairs.concept
        shows = evaluators.look(concept, pictures, tried.prompts, inner).shows(concept)
        counts.append(None if shows is None else sum(shows))
    assert tried is not None
    assert pictures is not None
    return ProbeResult(name, counts[0], counts[1], tuple(tried.prompts), pictures)


def _test_pairs(unlearned: UnlearnedModel, settings: ProbeSettings) -> list[PromptPair]:
    return list(itertools.islice(itertools.cycle(unlearned.pairs.test), settings.pictures))


def _worded(words: Callable[[ForgetConcept, Sequence[PromptPair]], list[str]]) -> Probe:
    def probe(
        unlearned: UnlearnedModel,
        settings: ProbeSettings,
        cache: LatentCache | None,
        progress: Progress,
    ) -> Try:
        pairs = _test_pairs(unlearned, settings)
        return Try(unlearned.model, words(unlearned.pairs.concept, pairs))

    return probe


def _examples(
    unlearned: UnlearnedModel,
    settings: ProbeSettings,
    cache: LatentCache | None,
    progress: Progress,
) -> tuple[list[PromptPair], Tensor]:
    """Pictures of the concept, as the model before unlearning draws them: where there are fewer
    prompts, several of one from seeds of their own."""
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
) -> Try:
    pairs, latents = _examples(unlearned, settings, cache, progress)
    taught = relearn(
        unlearned,
        latents,
        [pair.forget for pair in pairs],
        steps=settings.steps,
        seed=settings.generation.seed,
        at_once=settings.generation.batch_size,
        progress=progress,
    )
    return Try(taught, [pair.forget for pair in _test_pairs(unlearned, settings)])


def _inversion(
    unlearned: UnlearnedModel,
    settings: ProbeSettings,
    cache: LatentCache | None,
    progress: Progress,
) -> Try:
    concept = unlearned.pairs.concept
    pairs, latents = _examples(unlearned, settings, cache, progress)
    found = invert(
        unlearned.model,
        latents,
        [concept.replaced_in(pair.forget, PLACEHOLDER) for pair in pairs],
        concept.name,
        steps=settings.steps,
        seed=settings.generation.seed,
        at_once=settings.generation.batch_size,
        progress=progress,
    )
    asked = [
        concept.replaced_in(pair.forget, PLACEHOLDER) for pair in _test_pairs(unlearned, settings)
    ]
    return Try(found, asked)


WORDED: dict[str, Probe] = {
    "paraphrases": _worded(paraphrases),
    "misspellings": _worded(misspellings),
    "long prompts": _worded(long_prompts),
}
PROBES: dict[str, Probe] = {
    **WORDED,
    "textual inversion": _inversion,
    "relearning from ten pictures": _relearning,
}
