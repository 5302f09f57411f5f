"""The methods that the quality benchmark compares, each as settings of the one loop."""

from __future__ import annotations

from typing import Any

from unlearn_core.objectives import ERASE
from unlearn_core.settings import UCE

NASH = "Nash (MUNBa)"
PAPER = {"objective": "ascent", "retain_objective": "denoise"}

METHODS: dict[str, dict[str, Any]] = {
    "ours": {},
    "ours, step not restricted": {"restrict_step": False},
    "ours, dual cone": {"method": "dual cone"},
    "ours, GradDiff": {"method": "GradDiff", "restrict_step": False},
    "RG (paper)": {**PAPER, "restrict_step": False},
    "GradDiff": {**PAPER, "method": "GradDiff", "restrict_step": False},
    "MUNBa": {**PAPER, "method": NASH, "restrict_step": False},
    "NPO": {**PAPER, "objective": "NPO", "method": "GradDiff", "restrict_step": False},
    "SalUn": {
        **PAPER,
        "objective": "relabel",
        "method": "GradDiff",
        "saliency": 0.5,
        "restrict_step": False,
    },
    "ESD-x": {
        "objective": ERASE,
        "method": "forget only",
        "negative_guidance": 1.0,
        "restrict_step": False,
    },
    "ESD-u": {
        "objective": ERASE,
        "method": "forget only",
        "negative_guidance": 1.0,
        "scope": "noxattn",
        "restrict_step": False,
    },
    "UCE": {"method": UCE},
    "gradient ascent": {**PAPER, "method": "forget only", "restrict_step": False},
    "fine-tune": {**PAPER, "method": "retain only", "restrict_step": False},
}
"""Name -> what differs from the defaults. All train the cross-attention but ESD-u, which is
defined by training everything else."""

OURS = "ours"
ABLATIONS = ("ours, step not restricted", "ours, dual cone")
"""These take over what the search has chosen for ``OURS``: they show what one part of it does."""

LEARNING_RATES, RETAIN_WEIGHTS = (1e-3, 3e-3), (1.0, 5.0, 50.0, 400.0)
NASH_WEIGHTS = (
    0.2,
    1.0,
    5.0,
    25.0,
)  # MUNBa looks at angles alone: lengths are no part of its weight
MORE_RATES = (1e-4, 3e-4, 1e-3, 3e-3)
UCE_WEIGHTS = (0.01, 0.1, 1.0, 10.0)


def candidates(name: str) -> list[dict[str, Any]]:
    """What a method is tuned over: learning rate and retain weight where it has both, else four
    values of the one that it has."""
    overrides = METHODS[name]
    method = overrides.get("method")
    if method == UCE:
        return [{**overrides, "retain_weight": weight} for weight in UCE_WEIGHTS]
    if method in ("forget only", "retain only"):
        # One loss alone: a weight has nothing to weigh.
        return [{**overrides, "learning_rate": rate, "retain_weight": 0.0} for rate in MORE_RATES]
    weights = NASH_WEIGHTS if method == NASH else RETAIN_WEIGHTS
    return [
        {**overrides, "learning_rate": rate, "retain_weight": weight}
        for rate in LEARNING_RATES
        for weight in weights
    ]
