"""Evaluation of an unlearned model: both models generate pictures from the same prompts, which the
evaluators judge."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import replace

import torch

from ..dataset.drawing import LatentCache, draw_pictures
from ..judging.evaluators import Evaluators, find_evaluators, find_scorer
from ..judging.probes import PROBES, REWORDINGS, ProbeResult, run_probe
from ..judging.settings import PROBE_CHOICES, EvaluationSettings, ProbeSettings
from ..models.errors import UnsupportedError
from ..models.protocol import OnPicture, OnStep
from ..prompts.pairs import PromptPair
from ..unlearning.results import UnlearnedModel
from .comparing import Side, build_report
from .results import GROUPS, AlignmentReport

PROBED = dict(zip(PROBE_CHOICES, ((), tuple(REWORDINGS), tuple(PROBES)), strict=True))
"""The probes of each choice of ``EvaluationSettings.probes``."""


def evaluate(
    unlearned: UnlearnedModel,
    settings: EvaluationSettings,
    *,
    evaluators: Evaluators | None = None,
    cache: LatentCache | None = None,
    on_picture: OnPicture | None = None,
    on_probe: OnPicture | None = None,
    on_step: OnStep | None = None,
) -> AlignmentReport:
    """Compare the unlearned model with its base on forget and retain prompts, and run the probes,
    separately for each concept.

    Args:
        evaluators: by default those of ``find_evaluators`` for each concept.
        cache: for the base model's pictures.
        on_picture: progress over the pictures of both models.
        on_probe: progress over the probes.
        on_step: called after each denoising step, and while pictures are judged.

    Raises:
        ValueError: ``settings.scorer`` contains no CLIP.
    """
    each = [replace(unlearned, pairs=pairs) for pairs in unlearned.pairs.each]
    judges = [evaluators] * len(each) if evaluators else _evaluators(unlearned, settings)
    names = PROBED[settings.probes]

    def compare(i: int) -> AlignmentReport:
        def drawn(done: int, total: int) -> None:
            if on_picture is not None:
                on_picture(i * total + done, len(each) * total)

        return _compare(each[i], settings, judges[i], cache, drawn, on_step)

    def probed(i: int, report: AlignmentReport) -> AlignmentReport:
        results: list[ProbeResult] = []
        missing = list(report.missing)
        for done, name in enumerate(names, i * len(names) + 1):
            try:
                results.append(_probe(name, each[i], settings, judges[i], cache, on_step))
            except UnsupportedError as error:
                missing.append(f"The probe {name!r} was not possible: {error}")
            except torch.OutOfMemoryError:  # the figures so far are worth keeping
                missing.append(
                    f"The probe {name!r} ran out of memory: choose a smaller batch_size for the "
                    "evaluation"
                )
            if on_probe is not None:
                on_probe(done, len(each) * len(names))
        return replace(report, probes=tuple(results), missing=tuple(missing))

    reports = list(map(compare, range(len(each))))
    first, *others = itertools.starmap(probed, enumerate(reports))
    return replace(first, also=tuple(others))


def _evaluators(unlearned: UnlearnedModel, settings: EvaluationSettings) -> list[Evaluators]:
    scorer = find_scorer(unlearned.base, settings.scorer)
    return [find_evaluators(unlearned.base, pairs, scorer) for pairs in unlearned.pairs.each]


def _probe(
    name: str,
    unlearned: UnlearnedModel,
    settings: EvaluationSettings,
    evaluators: Evaluators,
    cache: LatentCache | None,
    on_step: OnStep | None,
) -> ProbeResult:
    """Run a probe with the evaluation's number of pictures and sampler, but with other seeds."""
    defaults = ProbeSettings()
    generation = replace(settings.generation, seed=defaults.generation.seed)
    probe = replace(defaults, pictures=settings.pictures, generation=generation)
    return run_probe(
        name, unlearned, evaluators, probe, cache=cache, on_step=on_step or (lambda: None)
    )


def _compare(
    unlearned: UnlearnedModel,
    settings: EvaluationSettings,
    evaluators: Evaluators,
    cache: LatentCache | None,
    on_picture: OnPicture,
    on_step: OnStep | None,
) -> AlignmentReport:
    """One concept's report, without probes."""
    concept, count = unlearned.pairs.concept, settings.pictures
    pairs = {
        "forget": _cycle(unlearned.pairs.test, count),
        "retain train": _cycle(unlearned.pairs.train, count),
        "retain test": _cycle(unlearned.pairs.test, count),
    }
    prompts = [
        pair.forget if name == "forget" else pair.retain for name in GROUPS for pair in pairs[name]
    ]
    sides: list[Side] = []
    for i, (model, its_cache) in enumerate(((unlearned.base, cache), (unlearned.model, None))):

        def progress(done: int, total: int, before: int = i * len(prompts)) -> None:
            on_picture(before + done, 2 * total)

        pictures = draw_pictures(
            model, prompts, settings.generation,
            cache=its_cache, on_picture=progress, on_step=on_step,
        )  # fmt: skip
        sides.append(Side(pictures, evaluators.look(concept, pictures, prompts, on_step)))
    return build_report(concept, pairs, prompts, sides[0], sides[1], evaluators)


def _cycle(pairs: Sequence[PromptPair], count: int) -> list[PromptPair]:
    return list(itertools.islice(itertools.cycle(pairs), count))
