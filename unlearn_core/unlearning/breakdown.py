"""The errors after which a run goes back to its last good state."""

from __future__ import annotations

RAN_AWAY, NOT_FINITE = "retain ran away", "not finite"


class WentWrongError(ValueError):
    """The retain loss shows that the model is damaged."""

    kind = RAN_AWAY
    problem = "the retain loss rose beyond its limit"


class NotFiniteError(WentWrongError):
    """A gradient is not finite."""

    kind = NOT_FINITE
    problem = "a gradient was not finite"
