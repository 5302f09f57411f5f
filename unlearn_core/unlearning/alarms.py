"""Alarms of a run: what can go wrong, the limits, and the messages.

The limits were measured on the demo models. All compare the trained model with the frozen one, so
they have no unit and do not depend on the family. ``watch`` measures during a run.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from .breakdown import NOT_FINITE, RAN_AWAY, WentWrongError
from .rules import excess_over
from .settings import UnlearnSettings

UNKNOWN_WORD = "unknown word"
DOES_NOT_MOVE = "does not move"
LOOK_DOES_NOT_MOVE = "look does not move"
GAVE_UP = "gave up"
GAVE_UP_NOT_FINITE = "gave up, not finite"
NOT_PROTECTED = "not protected"
NOISE = "turned to noise"
ENDED = (GAVE_UP, GAVE_UP_NOT_FINITE)  # the run, before the step that the user chose
KINDS = (
    UNKNOWN_WORD,
    DOES_NOT_MOVE,
    LOOK_DOES_NOT_MOVE,
    RAN_AWAY,
    NOT_FINITE,
    *ENDED,
    NOT_PROTECTED,
    NOISE,
)

UNKNOWN = 1.5
"""Distance of a word's predictions from those of made-up words, relative to the distance of the
made-up words from each other. 14 words that EmojiCanvas knows have 2.2 to 5.0, and 6 of
EmojiCanvas-Flow 3.3 to 12.7; 17 of 20 made-up words have 0.6 to 1.3, the others up to 2.7."""
MOVES = 0.05  # smallest fall of the forget loss, as a share of the frozen model's
NOTHING = 1e-6  # largest forget loss that counts as 0, as a share of the frozen model's error
DAMAGE = 1.0
"""Largest distance to the frozen model's predictions on retain pictures, as a multiple of the
frozen model's own error. On EmojiCanvas, a run with the automatic rate ends at 0.006 and the
paper's recipe (20 steps) at 0.15. Ten times the automatic rate ends at 0.1; thirty times exceeds 1
on the way, and a hundred times ends at 19, which is noise."""
HARDENING_DAMAGE = 8.0
"""The same during the steps of ``harden``, which first disturb the whole model and then repair it.
At the end, the usual limit applies."""
NOISE_SHARE = 0.25  # this distance as a share of the mean square of the frozen predictions
RATE_FACTOR = 0.25
"""Factor of the learning rate after going back. Three times give 1/64, enough for a rate that is a
hundred times too high."""
MOST_RETURNS = 3


@dataclass(frozen=True)
class Alarm:
    """Something that went wrong in a run.

    Attributes:
        step: where it was noticed; 0 before the first step.
        kind: one of ``KINDS``.
        message: the problem and the action or cure, in English.
        values: the parts of the message that differ, for a translation.
        back_to: the last step that remains if steps were undone; otherwise None.
    """

    step: int
    kind: str
    message: str
    values: Mapping[str, str] = field(default_factory=dict)
    back_to: int | None = None

    def as_json(self) -> dict[str, Any]:
        return {"step": self.step, "kind": self.kind, "message": self.message}


@dataclass(frozen=True)
class Reference:
    """The frozen model on the rows of the check.

    Attributes:
        error: its mean denoising error on retain pictures.
        worst: the largest such error of a row.
        power: mean square of its predictions there.
        forget_loss: its forget loss.
    """

    error: float
    worst: float
    power: float
    forget_loss: float


def protects(settings: UnlearnSettings) -> bool:
    """Whether the run is meant to protect the rest. Otherwise (gradient ascent, ESD, a retain
    weight of 0) its retain loss is expected to rise, and nothing is undone."""
    if settings.method == "retain only":
        return True
    return settings.method != "forget only" and settings.retain_weight > 0


def is_suspicious(
    retain_loss: float, settings: UnlearnSettings, reference: Reference, allowed: float = DAMAGE
) -> bool:
    """Whether the retain loss of one step is so high that the model should be measured on the rows
    of the check. A single batch may have a high 'denoise' loss without any damage, because this
    loss depends on the noise levels.

    Args:
        allowed: as for ``is_damaged``.
    """
    usual = reference.worst if settings.retain_objective == "denoise" else 0.0
    limit = usual + allowed * reference.error
    return not retain_loss <= limit  # also if it is not a number


def excess_of(retain_loss: float, settings: UnlearnSettings, reference: Reference) -> float:
    """By how much the retain loss of one step exceeds its limit, as a share of it. The limit lets
    the frozen model's error grow by the share ``retain_weight``."""
    already = reference.error if settings.retain_objective == "denoise" else 0.0
    return excess_over(settings.retain_weight * reference.error, retain_loss - already)


def allowed_damage(settings: UnlearnSettings) -> float:
    """The limit of ``is_damaged`` during the steps."""
    return HARDENING_DAMAGE if settings.harden else DAMAGE


def is_damaged(
    distance: float, reference: Reference, start: float = 0.0, allowed: float = DAMAGE
) -> bool:
    """Whether this distance to the frozen model on retain pictures is beyond the limit.

    Args:
        start: the distance before the first step; above 0 after a first edit, which the steps may
            have to repair.
        allowed: the limit, as a multiple of the frozen model's error.
    """
    return not distance <= max(allowed * reference.error, start)


def is_noise(distance: float, reference: Reference) -> bool:
    """Whether this distance to the frozen model on retain pictures is that of noise."""
    return not distance <= NOISE_SHARE * reference.power


def moved(forget_loss: float, reference: Reference, objective: str) -> bool:
    """Whether the forget loss has fallen noticeably below that of the frozen model. The loss of a
    run with a warm start is low from the first step, so its first step is no reference."""
    before = reference.forget_loss
    scale = abs(before)
    if scale < NOTHING * reference.error:  # it starts at 0, so it has no scale of its own
        scale = reference.error
    if objective == "NPO":  # with a small beta, it falls by the error's rise from 2 ln(2) / beta
        scale = min(scale, reference.error)
    return math.isfinite(forget_loss) and before - forget_loss > MOVES * scale


def unknown_word(word: str) -> Alarm:
    return Alarm(
        0,
        UNKNOWN_WORD,
        f"the model's predictions for {word!r} hardly differ from those for made-up words: it may "
        "not know this word; draw a picture of it and look",
        {"word": word},
    )


def does_not_move(step: int, words: Sequence[str]) -> Alarm:
    """
    Args:
        words: the names of the concepts; none for a look, which no word names.
    """
    if not words:
        cure = "the forget loss hardly moved: raise learning_rate or steps"
        return Alarm(step, LOOK_DOES_NOT_MOVE, cure)
    names = [repr(word) for word in words]
    return Alarm(
        step,
        DOES_NOT_MOVE,
        f"the forget loss hardly moved: the model may not know {' and '.join(names)} (draw a "
        "picture of it and look), or learning_rate or steps are too low",
        {"word": ", ".join(names)},
    )


def went_back(step: int, error: WentWrongError, back_to: int, rate: float) -> Alarm:
    return Alarm(
        step,
        error.kind,
        f"{error.problem} at step {step}: the run went back to the state after step {back_to} and "
        f"continues with a lower learning rate ({rate:.2g})",
        {"back_to": str(back_to), "rate": f"{rate:.2g}"},
        back_to,
    )


def gave_up(step: int, error: WentWrongError, back_to: int) -> Alarm:
    return Alarm(
        step,
        GAVE_UP_NOT_FINITE if error.kind == NOT_FINITE else GAVE_UP,
        f"{error.problem} at step {step}: the run ends with the state after step {back_to}; "
        f"{error.cure}",
        {"back_to": str(back_to)},
        back_to,
    )


def not_protected(step: int) -> Alarm:
    return Alarm(
        step,
        NOT_PROTECTED,
        f"the retain loss rose beyond its limit at step {step}, and these settings do not protect "
        "the rest of the model; choose another recipe, or lower learning_rate or steps",
    )


def turned_to_noise(step: int) -> Alarm:
    return Alarm(
        step,
        NOISE,
        "the rest of the model has turned to noise; lower learning_rate or raise retain_weight",
    )
