"""The errors after which a run goes back to its last good state."""

from __future__ import annotations

RAN_AWAY, NOT_FINITE = "retain ran away", "not finite"


class WentWrongError(ValueError):
    """The retain loss shows that the model is damaged."""

    kind = RAN_AWAY
    problem = "the retain loss rose beyond its limit"
    cure = "lower learning_rate or raise retain_weight"


class NotFiniteError(WentWrongError):
    """A gradient is not finite."""

    kind = NOT_FINITE
    problem = "a gradient was not finite"
    cure = "choose precision fp32 when you load the model, or lower learning_rate"
