"""Draws the same prompts with the model before and after, and counts what each still does."""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from ..concepts import ForgetConcept
from ..dataset import LatentCache, OnPicture, draw_latents
from ..models.protocol import ModelHandle, OnStep
from ..prompts import PromptPair, PromptPairs
from ..settings import EvaluationSettings
from ..unlearn import UnlearnedModel
from .alignment import SCORER_CONFIG, SCORER_WEIGHTS, ClipScorer
from .distance import cmmd
from .judge import JUDGE_FILE, ConvJudge, Judge, ZeroShotJudge

EVALUATION = "evaluation"  # folder of a model's own evaluators
GROUPS = ("forget", "retain train", "retain test")


@dataclass(frozen=True)
class Metrics:
    """One model's figures; a figure that cannot be had (no judge, no scorer) is None.

    Attributes:
        unlearning_accuracy: UA, share of held-out forget prompts whose picture is not of the
            concept.
        in_domain_retain: IRA, share of retain pictures that show what took the concept's place.
        cross_domain_retain: CRA, share of the other dimensions' values that retain pictures show.
        cross_domain_forget: the same under the forgotten concept's own prompts.
        alignment_forget, alignment_retain_train, alignment_retain_test: mean CLIP cosine.
        concept_shown: how many of the forget pictures show the concept.
        pictures: pictures of each group.
    """

    unlearning_accuracy: float | None
    in_domain_retain: float | None
    cross_domain_retain: float | None
    cross_domain_forget: float | None
    alignment_forget: float | None
    alignment_retain_train: float | None
    alignment_retain_test: float | None
    concept_shown: int | None
    pictures: int


@dataclass(frozen=True, eq=False)
class Comparison:
    """The same prompts and seeds drawn by both models; pictures [N, 3, H, W] in 0..1."""

    prompts: tuple[str, ...]
    before: Tensor
    after: Tensor


@dataclass(frozen=True, eq=False)
class AlignmentReport:
    """Before and after, in figures and pictures.

    Attributes:
        comparisons: a key for each of ``GROUPS``.
        retain_distance: ``cmmd`` between the retain pictures before and after; None without a
            scorer.
        also: the same for further concepts that the run was to forget.
    """

    concept: ForgetConcept
    before: Metrics
    after: Metrics
    comparisons: dict[str, Comparison]
    retain_distance: float | None
    also: tuple[AlignmentReport, ...] = ()

    @property
    def each(self) -> tuple[AlignmentReport, ...]:
        """One report a concept; the first is this one."""
        return (self, *self.also)


@dataclass(frozen=True, eq=False)
class Evaluators:
    """Who judges: either may be absent."""

    scorer: ClipScorer | None
    judge: Judge | None


def find_scorer(model: ModelHandle) -> ClipScorer | None:
    """The CLIP that the model's folder carries; only as safetensors, for without that file
    open_clip would look for pickles."""
    folder = model.info.source / EVALUATION
    complete = all((folder / name).is_file() for name in (SCORER_CONFIG, SCORER_WEIGHTS))
    return ClipScorer.load(folder) if complete else None


def find_evaluators(model: ModelHandle, pairs: PromptPairs) -> Evaluators:
    """Those that the model's folder carries in ``evaluation/``; CLIP also judges if need be."""
    folder, scorer = model.info.source / EVALUATION, find_scorer(model)
    if (folder / JUDGE_FILE).is_file():
        return Evaluators(scorer, ConvJudge.load(folder))
    if scorer is None:
        return Evaluators(None, None)
    concept = pairs.concept
    own = {concept.kind: (concept.name, *concept.replacements)} if concept.replacements else {}
    return Evaluators(scorer, ZeroShotJudge(scorer, {**pairs.dimensions, **own}))


def evaluate(
    unlearned: UnlearnedModel,
    settings: EvaluationSettings,
    *,
    evaluators: Evaluators | None = None,
    cache: LatentCache | None = None,
    on_picture: OnPicture | None = None,
    on_step: OnStep | None = None,
) -> AlignmentReport:
    """Compare the unlearned model with its base on forget prompts and retain prompts, for each
    concept by itself.

    Args:
        evaluators: default: what ``find_evaluators`` finds for each concept.
        cache: for the base model's pictures.
        on_picture: progress over the pictures of both models.
        on_step: called after each denoising step.
    """
    each = unlearned.pairs.each

    def compare(i: int) -> AlignmentReport:
        def report(done: int, total: int) -> None:
            if on_picture is not None:
                on_picture(i * total + done, len(each) * total)

        judges = evaluators or find_evaluators(unlearned.base, each[i])
        return _compare(unlearned, each[i], settings, judges, cache, report, on_step)

    first, *others = map(compare, range(len(each)))
    return replace(first, also=tuple(others))


def _compare(
    unlearned: UnlearnedModel,
    pairs: PromptPairs,
    settings: EvaluationSettings,
    evaluators: Evaluators,
    cache: LatentCache | None,
    on_picture: OnPicture,
    on_step: OnStep | None,
) -> AlignmentReport:
    """One concept's report."""
    groups = {
        "forget": _cycle(pairs.test, settings.pictures),
        "retain train": _cycle(pairs.train, settings.pictures),
        "retain test": _cycle(pairs.test, settings.pictures),
    }
    prompts = {
        name: [pair.forget if name == "forget" else pair.retain for pair in chosen]
        for name, chosen in groups.items()
    }
    everything = [prompt for name in GROUPS for prompt in prompts[name]]
    drawn = []
    for i, (model, its_cache) in enumerate(((unlearned.base, cache), (unlearned.model, None))):

        def report(done: int, total: int, before: int = i * len(everything)) -> None:
            on_picture(before + done, 2 * total)

        latents = draw_latents(
            model, everything, settings.generation,
            cache=its_cache, on_picture=report, on_step=on_step,
        )  # fmt: skip
        drawn.append(model.decode_latents(latents.to(model.device)).split(settings.pictures))
    comparisons = {
        name: Comparison(tuple(prompts[name]), before, after)
        for name, before, after in zip(GROUPS, *drawn, strict=True)
    }
    figures = [
        measure(
            pairs.concept,
            groups,
            {name: getattr(comparison, side) for name, comparison in comparisons.items()},
            prompts,
            evaluators,
        )
        for side in ("before", "after")
    ]
    distance = _distance(comparisons, evaluators.scorer)
    return AlignmentReport(pairs.concept, figures[0], figures[1], comparisons, distance)


def _distance(comparisons: dict[str, Comparison], scorer: ClipScorer | None) -> float | None:
    if scorer is None:
        return None
    retained = [comparisons[name] for name in GROUPS if name != "forget"]
    before, after = (
        scorer.embed_images(torch.cat([getattr(comparison, side) for comparison in retained]))
        for side in ("before", "after")
    )
    return cmmd(before, after)


def measure(
    concept: ForgetConcept,
    groups: dict[str, list[PromptPair]],
    pictures: dict[str, Tensor],
    prompts: dict[str, list[str]],
    evaluators: Evaluators,
) -> Metrics:
    """One model's figures from its pictures of the three groups."""
    scorer, judge = evaluators.scorer, evaluators.judge
    alignment = {
        name: scorer.alignment(pictures[name], prompts[name]).mean().item() if scorer else None
        for name in GROUPS
    }
    seen = {name: judge.classify(pictures[name]) if judge else {} for name in GROUPS}
    shown = None
    if concept.kind in seen["forget"]:
        shown = sum(value == concept.name for value in seen["forget"][concept.kind])
    # A judge cannot see an invented name's style, for there is none.
    known = judge.dimensions.get(concept.kind, ()) if judge else ()
    retained = {
        name: groups["retain train"] + groups["retain test"] if name == "retain" else groups[name]
        for name in ("retain", "forget")
    }
    seen_retain = {
        dimension: seen["retain train"][dimension] + seen["retain test"][dimension]
        for dimension in seen["retain train"]
    }
    return Metrics(
        unlearning_accuracy=None if shown is None else 1 - shown / len(groups["forget"]),
        in_domain_retain=_share(
            (value, pair.replacement)
            for value, pair in zip(
                seen_retain.get(concept.kind, []), retained["retain"], strict=False
            )
            if pair.replacement in known
        ),
        cross_domain_retain=_content(retained["retain"], seen_retain),
        cross_domain_forget=_content(retained["forget"], seen["forget"]),
        alignment_forget=alignment["forget"],
        alignment_retain_train=alignment["retain train"],
        alignment_retain_test=alignment["retain test"],
        concept_shown=shown,
        pictures=len(groups["forget"]),
    )


def _cycle(pairs: Sequence[PromptPair], count: int) -> list[PromptPair]:
    return list(itertools.islice(itertools.cycle(pairs), count))


def _content(pairs: Sequence[PromptPair], seen: dict[str, list[str | None]]) -> float | None:
    return _share(
        (found, pair.values[dimension])
        for dimension, values in seen.items()
        for found, pair in zip(values, pairs, strict=True)
        if dimension in pair.values
    )


def _share(found_and_wanted: Iterable[tuple[str | None, str]]) -> float | None:
    right = [found == wanted for found, wanted in found_and_wanted]
    return sum(right) / len(right) if right else None
