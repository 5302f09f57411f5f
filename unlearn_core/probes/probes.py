"""The probes by name, and the one way to run them."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from torch import Tensor

from ..concepts import ForgetConcept
from ..dataset import LatentCache, draw_latents
from ..evaluation.evaluate import Evaluators
from ..models.protocol import ModelHandle, OnStep
from ..prompts import PromptPair
from ..settings import ProbeSettings
from ..unlearn import UnlearnedModel
from .relearning import PLACEHOLDER, invert, relearn
from .wordings import long_prompts, misspellings, paraphrases


@dataclass(frozen=True, eq=False)
class ProbeResult:
    """What a probe brought back.

    Attributes:
        before: share of pictures in which the model before unlearning shows the concept when it
            is probed the same way; None where nobody can judge. A probe to which it does not
            answer says nothing.
        after: the same share of the unlearned model.
        prompts: the prompts drawn.
        pictures: of the unlearned model, [N, 3, H, W] in 0..1.
    """

    before: float | None
    after: float | None
    prompts: tuple[str, ...]
    pictures: Tensor


@dataclass(frozen=True, eq=False)
class Try:
    """What to draw with which model."""

    model: ModelHandle
    prompts: Sequence[str]


Probe = Callable[[UnlearnedModel, ProbeSettings, "LatentCache | None", OnStep], Try]


def run_probe(
    name: str,
    unlearned: UnlearnedModel,
    evaluators: Evaluators,
    settings: ProbeSettings,
    *,
    cache: LatentCache | None = None,
    on_step: OnStep = lambda: None,
) -> ProbeResult:
    """Probe the unlearned model, and its base for comparison, for the first of its concepts:
    ``unlearned`` with the ``pairs`` of another one asks for that.

    Args:
        name: one of ``PROBES``.
        cache: for the base model's pictures.

    Raises:
        ValueError: a probe that is unknown, or of which the model has no means.
    """
    if name not in PROBES:
        raise ValueError(f"probe must be one of {', '.join(PROBES)}, got {name!r}")
    shares, pictures, prompts = [], None, ()
    original = UnlearnedModel(
        unlearned.base, unlearned.base, unlearned.pairs, unlearned.settings, ()
    )
    for subject in (original, unlearned):
        tried = PROBES[name](subject, settings, cache, on_step)
        # A model that a probe has changed shares its base's fingerprint, but draws other pictures.
        plain = cache if tried.model is unlearned.base else None
        latents = draw_latents(
            tried.model, tried.prompts, settings.generation, cache=plain, on_step=on_step
        )
        prompts = tuple(tried.prompts)
        pictures = tried.model.decode_latents(latents.to(tried.model.device))
        shares.append(_shown(pictures, unlearned, evaluators))
    assert pictures is not None
    return ProbeResult(shares[0], shares[1], prompts, pictures)


def _shown(pictures: Tensor, unlearned: UnlearnedModel, evaluators: Evaluators) -> float | None:
    concept = unlearned.pairs.concept
    seen = evaluators.judge.classify(pictures) if evaluators.judge else {}
    if concept.kind not in seen:
        return None
    return sum(value == concept.name for value in seen[concept.kind]) / len(pictures)


def _test_pairs(unlearned: UnlearnedModel, settings: ProbeSettings) -> list[PromptPair]:
    return list(itertools.islice(itertools.cycle(unlearned.pairs.test), settings.pictures))


def _worded(words: Callable[[ForgetConcept, Sequence[PromptPair]], list[str]]) -> Probe:
    def probe(
        unlearned: UnlearnedModel,
        settings: ProbeSettings,
        cache: LatentCache | None,
        on_step: OnStep,
    ) -> Try:
        pairs = _test_pairs(unlearned, settings)
        return Try(unlearned.model, words(unlearned.pairs.concept, pairs))

    return probe


def _examples(
    unlearned: UnlearnedModel,
    settings: ProbeSettings,
    cache: LatentCache | None,
    on_step: OnStep,
) -> tuple[list[PromptPair], Tensor]:
    """Pictures of the concept, as the model before unlearning draws them."""
    pairs = list(unlearned.pairs.train[: settings.examples])
    prompts = [pair.forget for pair in pairs]
    return pairs, draw_latents(
        unlearned.base, prompts, settings.generation, cache=cache, on_step=on_step
    )


def _relearning(
    unlearned: UnlearnedModel,
    settings: ProbeSettings,
    cache: LatentCache | None,
    on_step: OnStep,
) -> Try:
    pairs, latents = _examples(unlearned, settings, cache, on_step)
    taught = relearn(
        unlearned,
        latents,
        [pair.forget for pair in pairs],
        steps=settings.steps,
        seed=settings.generation.seed,
        on_step=on_step,
    )
    return Try(taught, [pair.forget for pair in _test_pairs(unlearned, settings)])


def _inversion(
    unlearned: UnlearnedModel,
    settings: ProbeSettings,
    cache: LatentCache | None,
    on_step: OnStep,
) -> Try:
    concept = unlearned.pairs.concept
    pairs, latents = _examples(unlearned, settings, cache, on_step)
    found = invert(
        unlearned.model,
        latents,
        [concept.replaced_in(pair.forget, PLACEHOLDER) for pair in pairs],
        concept.name,
        steps=settings.steps,
        seed=settings.generation.seed,
        on_step=on_step,
    )
    asked = [
        concept.replaced_in(pair.forget, PLACEHOLDER) for pair in _test_pairs(unlearned, settings)
    ]
    return Try(found, asked)


PROBES: dict[str, Probe] = {
    "paraphrases": _worded(paraphrases),
    "misspellings": _worded(misspellings),
    "long prompts": _worded(long_prompts),
    "textual inversion": _inversion,
    "relearning from ten pictures": _relearning,
}
