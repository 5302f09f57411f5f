"""The methods that the quality benchmark compares, each as settings of the one loop."""

from __future__ import annotations

from typing import Any

from unlearn_core.unlearning.recipes import RECIPES
from unlearn_core.unlearning.settings import LAST_TOKEN, UCE

ESD_LATER, UCE_LATER = "ESD-u, 2025", "UCE, 2025"
"""The authors' code as of April 2025; without the year it is that of 2023."""
WEIGHT_1 = {"warm_start_weight": 1.0}
"""The default while most variants were compared; they are told apart from what ours was then."""

UCE_AS_IN_OURS = "UCE, weight 4"
"""The edit that ours begins from, by itself."""
CLOSED_FORM = {**RECIPES["UCE"], "warm_start": False}

METHODS: dict[str, dict[str, Any]] = {
    "ours": {},
    "ours, step not restricted": {"restrict_step": False},
    "ours, GradDiff": {"method": "GradDiff", "restrict_step": False},
    "ours, cold start": {"warm_start": False},
    "ours, weight 1": WEIGHT_1,
    "weight 1, step not restricted": {**WEIGHT_1, "restrict_step": False},
    "weight 1, dual cone": {**WEIGHT_1, "method": "dual cone"},
    "weight 1, GradDiff": {**WEIGHT_1, "method": "GradDiff", "restrict_step": False},
    "weight 1, not diversified": {**WEIGHT_1, "diversified": False},
    "weight 1, 4 retain batches": {**WEIGHT_1, "retain_batch_factor": 4},
    "weight 1, retain average": {**WEIGHT_1, "retain_ema": 0.9},
    "weight 1, not paired": {**WEIGHT_1, "paired": False},
    "weight 1, timesteps at random": {**WEIGHT_1, "stratified_timesteps": False},
    "RGD (paper)": dict(RECIPES["RGD (paper)"]),
    "RGD, not diversified": {"diversified": False},  # the recipe `RG (paper)`
    "RGD, empty prompt kept": {"empty_share": 0.1},
    "RGD, whole retain set": {"retain_batch_factor": 0},
    "RGD, stop above": {"objective": "ascent, stop above", "truncation": 1.3},
    **{
        name: dict(RECIPES[name])
        for name in ("GradDiff", "MUNBa", "NPO", "SalUn", "ESD-x", "ESD-u")
    },
    ESD_LATER: {"scope": RECIPES["ESD-u (2025)"]["scope"]},
    "UCE": CLOSED_FORM,
    UCE_LATER: {"uce_tokens": LAST_TOKEN},
    UCE_AS_IN_OURS: {"retain_weight": 4.0},
    "gradient ascent": dict(RECIPES["gradient ascent"]),
    "fine-tune": dict(RECIPES["fine-tune"]),
}
"""Name -> the settings of a method that differ from the defaults, most of them a recipe of the
package; of an ablation, those that differ from the method that it is compared with."""

OURS, OURS_BEFORE = "ours", "ours, weight 1"
CALMED = (
    "weight 1, 4 retain batches",
    "weight 1, retain average",
    "weight 1, not paired",
    "weight 1, timesteps at random",
)
"""What makes the retain gradient calmer, or less calm."""
UNPROBED = (
    *CALMED,
    "ours, step not restricted",
    "ours, GradDiff",
    "RGD, whole retain set",
    "RGD, stop above",
    UCE_AS_IN_OURS,
    ESD_LATER,
    UCE_LATER,
)
ABLATIONS = {
    "ours, step not restricted": OURS,
    "ours, GradDiff": OURS,
    "weight 1, step not restricted": OURS_BEFORE,
    "weight 1, dual cone": OURS_BEFORE,
    "weight 1, not diversified": OURS_BEFORE,
    **dict.fromkeys(CALMED, OURS_BEFORE),
    "RGD, not diversified": "RGD (paper)",
    "RGD, empty prompt kept": "RGD (paper)",
    "RGD, whole retain set": "RGD (paper)",
    "RGD, stop above": "RGD (paper)",
    UCE_AS_IN_OURS: "UCE",
    UCE_LATER: "UCE",
    ESD_LATER: "ESD-u",
}
"""Each takes over what the search has chosen for another, to show what a part of that one does."""
OF_ONE_SEED = (*ABLATIONS, "weight 1, GradDiff")
"""Variants that the first seed has told all of: what they change is nothing, or far more than the
seeds differ by."""
BESIDE = {method: OURS_BEFORE for method in METHODS if method.startswith("weight 1, ")}
"""What is compared with something else than ours."""
LEARNING_RATES, RETAIN_WEIGHTS = (3e-4, 1e-3, 3e-3), (1.0, 5.0, 50.0)
OWN_WEIGHTS = {
    "MUNBa": (0.2, 1.0, 5.0),  # looks at angles alone: lengths are no part of its weight
    "SalUn": (0.1, 1.0, 5.0),  # its authors take 0.1 and 0.5
}
MORE_RATES = (1e-4, *LEARNING_RATES)
UCE_WEIGHTS = (0.01, 0.1, 1.0, 4.0, 10.0, 100.0)


def candidates(name: str) -> list[dict[str, Any]]:
    """What a method is tuned over: learning rate and retain weight where it has both, else values
    of the one that it has."""
    overrides = METHODS[name]
    method = overrides.get("method")
    if method == UCE:
        # It takes no steps: a rate has nothing to move.
        return [
            {**overrides, "learning_rate": 1.0, "retain_weight": weight} for weight in UCE_WEIGHTS
        ]
    if method in ("forget only", "retain only"):
        # One loss alone: a weight has nothing to weigh.
        return [{**overrides, "learning_rate": rate, "retain_weight": 0.0} for rate in MORE_RATES]
    return [
        {**overrides, "learning_rate": rate, "retain_weight": weight}
        for rate in LEARNING_RATES
        for weight in OWN_WEIGHTS.get(name, RETAIN_WEIGHTS)
    ]
