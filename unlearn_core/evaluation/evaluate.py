"""Evaluation of an unlearned model: both models generate pictures from the same prompts, which the
evaluators judge."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import replace

import torch

from ..dataset.drawing import LatentCache, draw_pictures
from ..foundation.cost import peak_bytes
from ..foundation.processes import ALONE, Processes
from ..foundation.progress import EVALUATING, PROBING, Progress
from ..judging.curves import Attack, Curve, run_curve
from ..judging.evaluators import Evaluators, find_evaluators, find_scorer
from ..judging.probes import ATTACKS
from ..judging.settings import EvaluationSettings, ProbeSettings
from ..models.errors import UnsupportedError
from ..models.rounding import as_saved
from ..prompts.pairs import PromptPair
from ..unlearning.results import UnlearnedModel
from .comparing import Side, build_report
from .results import GROUPS, AlignmentReport

NO_PROBES = (
    "Probes ask for a concept by its word in other ways, and no word names a look: none was made."
)
OUT_OF_MEMORY = "ran out of memory: choose a smaller batch_size for the evaluation"


def evaluate(
    unlearned: UnlearnedModel,
    settings: EvaluationSettings,
    *,
    evaluators: Evaluators | None = None,
    cache: LatentCache | None = None,
    progress: Progress | None = None,
    processes: Processes = ALONE,
) -> AlignmentReport:
    """Compare the unlearned model with its base on forget and retain prompts, and run the probes,
    separately for each concept. The unlearned model has the precision in which it is saved.

    Args:
        evaluators: by default those of ``find_evaluators`` for each concept.
        cache: for the base model's pictures.
        progress: ticks once for each picture of both models, then once for each probe.
        processes: share the drawing of these pictures. The main process alone runs the probes: the
            reports of the others do not contain them.

    Raises:
        ValueError: ``settings.scorer`` contains no CLIP, or the model cannot decode pictures.
    """
    if not unlearned.base.can_decode:
        raise UnsupportedError(
            f"unlearned: {unlearned.base.info.name!r} has no VAE, so there are no pictures to "
            "evaluate; link the checkpoint's VAE or Load VAE to From ComfyUI"
        )
    unlearned = replace(unlearned, model=as_saved(unlearned.model))
    each = [replace(unlearned, pairs=pairs) for pairs in unlearned.pairs.each]
    judges = [evaluators] * len(each) if evaluators else _evaluators(unlearned, settings)
    progress, attacks = progress or Progress(), ATTACKS[settings.probes]
    attacks = attacks if processes.is_main else ()
    if attacks and not unlearned.pairs.concept.has_word:  # never one of several concepts
        attacks, judges = (), [_with_message(judges[0], NO_PROBES)]
    start = progress.cost()

    def with_probes(i: int, report: AlignmentReport) -> AlignmentReport:
        curves: list[Curve] = []
        failures: dict[str, list[str]] = {}  # reason -> probes
        for attack in progress.ticking(attacks):
            try:
                curves.append(_curve(attack, each[i], settings, judges[i], cache, progress))
            except UnsupportedError as error:
                failures.setdefault(str(error), []).append(attack.name)
            except torch.OutOfMemoryError:  # keep the other figures
                failures.setdefault(OUT_OF_MEMORY, []).append(attack.name)
        missing = itertools.starmap(_impossible, failures.items())
        return replace(report, curves=tuple(curves), missing=(*report.missing, *missing))

    images = len(each) * len(GROUPS) * settings.pictures
    with progress.phase(EVALUATING, 2 * images):  # of the model before and after
        reports = [
            _compare(part, settings, judge, cache, progress, processes)
            for part, judge in zip(each, judges, strict=True)
        ]
    if attacks:
        with progress.phase(PROBING, len(each) * len(attacks)):
            reports = list(itertools.starmap(with_probes, enumerate(reports)))
    first, *others = reports
    cost = replace(progress.cost(start), peak_bytes=peak_bytes(unlearned.base.device))
    return replace(first, also=tuple(others), cost=cost)


def _with_message(evaluators: Evaluators, message: str) -> Evaluators:
    return replace(evaluators, missing=(*evaluators.missing, message))


def _evaluators(unlearned: UnlearnedModel, settings: EvaluationSettings) -> list[Evaluators]:
    scorer = find_scorer(unlearned.base, settings.scorer)
    return [find_evaluators(unlearned.base, pairs, scorer) for pairs in unlearned.pairs.each]


def _curve(
    attack: Attack,
    unlearned: UnlearnedModel,
    settings: EvaluationSettings,
    evaluators: Evaluators,
    cache: LatentCache | None,
    progress: Progress,
) -> Curve:
    """Probe with the evaluation's number of pictures and sampler, but with other seeds."""
    defaults = ProbeSettings()
    generation = replace(settings.generation, seed=defaults.generation.seed)
    probe = replace(defaults, pictures=settings.pictures, generation=generation)
    return run_curve(attack, unlearned, evaluators, probe, cache=cache, progress=progress)


def _impossible(reason: str, names: Sequence[str]) -> str:
    """The message about the probes that failed for the same reason."""
    subject, verb = ("probe", "was") if len(names) == 1 else ("probes", "were")
    return f"The {subject} {', '.join(map(repr, names))} {verb} not possible: {reason}"


def _compare(
    unlearned: UnlearnedModel,
    settings: EvaluationSettings,
    evaluators: Evaluators,
    cache: LatentCache | None,
    progress: Progress,
    processes: Processes,
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
    for model, model_cache in ((unlearned.base, cache), (unlearned.model, None)):
        pictures = draw_pictures(
            model,
            prompts,
            settings.generation,
            cache=model_cache,
            progress=progress,
            processes=processes,
        )
        sides.append(Side(pictures, evaluators.look(concept, pictures, prompts, progress)))
    return build_report(concept, pairs, prompts, sides[0], sides[1], evaluators)


def _cycle(pairs: Sequence[PromptPair], count: int) -> list[PromptPair]:
    return list(itertools.islice(itertools.cycle(pairs), count))
