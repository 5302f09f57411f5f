"""The results of an evaluation: figures and pictures."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from torch import Tensor

from ..foundation.cost import NO_COST, Cost
from ..judging.curves import Curve
from ..judging.probes import PROBES, ProbeResult, as_probe
from ..prompts.concept import ForgetConcept
from .bootstrap import Interval

GROUPS = ("forget", "retain train", "retain test")


@dataclass(frozen=True)
class Metrics:
    """One model's figures; None for those that need a missing judge or scorer.

    Attributes:
        unlearning_accuracy: UA, share of held-out forget prompts whose picture does not show the
            concept.
        in_domain_retain: IRA, share of retain pictures that show the concept's replacement.
        cross_domain_retain: CRA, share of the other dimensions' values that retain pictures show.
        cross_domain_forget: the same share for the forget pictures.
        alignment_forget, alignment_retain_train, alignment_retain_test: mean CLIP cosine.
        concept_shown: number of forget pictures that show the concept.
        pictures: number of pictures in each group.
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


@dataclass(frozen=True)
class Estimate:
    """A mean over pictures and its confidence interval."""

    mean: float
    interval: Interval


@dataclass(frozen=True)
class PictureFacts:
    """The observations in one prompt's two pictures; None if no evaluator can judge.

    Attributes:
        replacement: the concept's replacement in a retain prompt.
        shows_before, shows_after: whether the picture shows the concept.
        change: 1 - cosine of CLIP's embeddings of the two, 0 for the same picture, up to 2.
        alignment_before, alignment_after: cosine of CLIP's embeddings of picture and prompt.
    """

    replacement: str
    shows_before: bool | None
    shows_after: bool | None
    change: float | None
    alignment_before: float | None
    alignment_after: float | None


@dataclass(frozen=True, eq=False)
class Comparison:
    """Both models' pictures from the same prompts and seeds, uint8 [N, 3, H, W]."""

    prompts: tuple[str, ...]
    before: Tensor
    after: Tensor
    facts: tuple[PictureFacts, ...]


@dataclass(frozen=True, eq=False)
class AlignmentReport:
    """One concept's figures and pictures before and after unlearning.

    Attributes:
        comparisons: one for each of ``GROUPS``.
        retain_distance: ``cmmd`` between the retain pictures before and after; None without a
            scorer.
        picture_change: mean ``PictureFacts.change`` of the retain pictures; None without a scorer.
        intervals: of the figures ``after``, by their name in ``Metrics``.
        alignment_change: mean of after - before per prompt, by the figure's name in ``Metrics``.
        neighbours: the replacements that look most like the concept, nearest first.
        detections: body part -> its counts before and after in the forget pictures; None if
            NudeNet did not judge.
        curves: the results of the probes.
        scorer: name of the CLIP model.
        missing: messages about figures that could not be measured, each with its remedy.
        also: the reports of the run's further concepts.
        cost: of the evaluation of all concepts.
    """

    concept: ForgetConcept
    before: Metrics
    after: Metrics
    comparisons: dict[str, Comparison]
    retain_distance: float | None
    picture_change: Estimate | None = None
    intervals: Mapping[str, Interval] = field(default_factory=dict)
    alignment_change: Mapping[str, Estimate] = field(default_factory=dict)
    neighbours: tuple[str, ...] = ()
    detections: Mapping[str, tuple[int, int]] | None = None
    curves: tuple[Curve, ...] = ()
    scorer: str | None = None
    missing: tuple[str, ...] = ()
    also: tuple[AlignmentReport, ...] = ()
    cost: Cost = NO_COST

    @property
    def each(self) -> tuple[AlignmentReport, ...]:
        """One report per concept; the first is this one."""
        return (self, *self.also)

    @property
    def probes(self) -> tuple[ProbeResult, ...]:
        """The probes with a single figure."""
        return tuple(as_probe(curve) for curve in self.curves if curve.name in PROBES)

    def get_ram_usage(self) -> int:
        """Bytes of the pictures. ComfyUI's cache of outputs calls this method by name."""
        pictures = [curve.pictures for part in self.each for curve in part.curves]
        for part in self.each:
            for comparison in part.comparisons.values():
                pictures += [comparison.before, comparison.after]
        return sum(tensor.nbytes for tensor in pictures)
