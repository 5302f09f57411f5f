"""Figures from the quality benchmark's records, and their formatting for tables."""

from __future__ import annotations

import statistics
from collections.abc import Callable, Sequence
from typing import Any

from benchmarks.chance import Spread, spread
from benchmarks.methods import METHODS
from benchmarks.quality import TIERS, harmonic_mean, read, scored_tasks, seeds_of

CONCEPTS, UNSEEN = TIERS["small"], TIERS["unseen"]
FIELD = tuple(method for method in METHODS if "," not in method)  # the others are variants
Record = dict[str, Any]
Figure = Callable[[Record], float | None]


def drift(side: str) -> Callable[[Record], float]:
    """Change of the alignment of retained pictures."""
    return lambda r: r["after"]["alignment"][side] - r["before"]["alignment"][side]


def both_drifts(record: Record) -> float:
    """Mean over train and test prompts, because both measure the same run's damage."""
    return (drift("retain_train")(record) + drift("retain_test")(record)) / 2


def mean_of_shares(record: Record) -> float:
    """The harmonic mean after unlearning."""
    return harmonic_mean(record["after"])


def distance(record: Record) -> float:
    """CMMD between the retained pictures before and after."""
    return record["retain_distance"]


COLUMNS: dict[str, Figure] = {
    "UA": lambda r: r["after"]["unlearning_accuracy"],
    "IRA": lambda r: r["after"]["in_domain_retain"],
    "CRA": lambda r: r["after"]["cross_domain_retain"],
    "CRA, forgotten prompts": lambda r: r["after"]["cross_domain_forget"],
    "harmonic mean": mean_of_shares,
    "alignment, train": drift("retain_train"),
    "alignment, test": drift("retain_test"),
    "CMMD": distance,
    "raised a loss": lambda r: r["rise_share"],
    "seconds": lambda r: r.get("gpu_seconds", r.get("cpu_seconds")),
    "GiB": lambda r: r["peak_bytes"] / 2**30,
}
SHARES = ("UA", "IRA", "CRA")
SUMMARY = (*SHARES, "harmonic mean", "alignment, train", "alignment, test", "CMMD")
SIDES = ("before", "after")
BEFORE = "*before unlearning*"  # row of a table
SIGNED = {"alignment, train", "alignment, test"}
PROBED = "shown when probed"
SHOWN = 0.25  # share of pictures; the base model knows few misspelled words
ROUGH = {"seconds": 0, "GiB": 1, PROBED: 2}


def records(method: str, concepts: Sequence[str]) -> list[Record]:
    """A method's scored runs so far, at the settings selected by the search."""
    return [record for task in scored_tasks(method, tuple(concepts)) if (record := read(task))]


def expected(method: str, concepts: Sequence[str]) -> int:
    """Number of runs when the method is complete."""
    return len(concepts) * len(seeds_of(method))


def before(figure: Figure) -> Figure:
    """The same figure of the original model."""
    return lambda record: figure({"after": record["before"]})


def recorded_passes(record: Record) -> int:
    """Denoiser passes for drawing the training pictures and for unlearning."""
    passes = record["cost"]["denoiser_passes"]
    return passes["drawing"] + passes["unlearning"]


def by_concept(runs: Sequence[Record], figure: Figure) -> list[list[float]]:
    """The figure's values by concept and seed; concepts without values are omitted."""
    groups: dict[str, list[float]] = {}
    for record in runs:
        value = figure(record)
        if value is not None:
            groups.setdefault(record["concept"]["name"], []).append(value)
    return list(groups.values())


def number(name: str, value: float) -> str:
    """Format a value with the figure's number of digits and its sign."""
    sign = "+" if name in SIGNED else ""
    return f"{value:{sign}.{ROUGH.get(name, 3)}f}"


def cell(name: str, groups: Sequence[Sequence[float]]) -> str:
    """``mean ± SD over concepts (SD over seeds)``; a dash if there are no values."""
    return format_spread(spread(groups), ROUGH.get(name, 3), name in SIGNED) if groups else "–"


def format_spread(values: Spread, digits: int, signed: bool = False) -> str:
    """The mean and those of the two standard deviations that exist."""
    text = f"{values.mean:{'+' if signed else ''}.{digits}f}"
    if values.over_concepts is not None:
        text += f" ± {values.over_concepts:.{digits}f}"
    if values.over_seeds is not None:
        text += f" ({values.over_seeds:.{digits}f})"
    return text


def over_seeds(name: str, values: Sequence[float]) -> str:
    """Mean and standard deviation of one concept's seeds."""
    text = number(name, statistics.mean(values))
    if len(values) > 1:
        text += f" ± {statistics.stdev(values):.{ROUGH.get(name, 3)}f}"
    return text
