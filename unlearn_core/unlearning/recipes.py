"""Complete methods by name, for the node, the command line and the benchmark.

A recipe sets every setting that belongs to the method, the scope included. The other settings
depend on the model or the machine (``FREE``). For a method with a retain loss, the retain weight is
the result of the benchmark's search.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, fields
from types import MappingProxyType
from typing import Any

from ..foundation.fields import check_fields, choice
from ..models.layers import AUTO, FULL, LORA_SELF_ATTENTION, NOXATTN, NOXATTN_2025, XATTN
from .objectives import ERASE, PREFER, PRIOR, RANDOM_LABEL, REMOVE_LOOK, UNINFORMATIVE
from .rules import LIMITED
from .settings import CASE, EDITS, LAST_TOKEN, SPEED, UCE, UnlearnSettings

OURS, LOOKS = "ours", "look"
FREE = (
    "effort",
    "steps",
    "learning_rate",
    "seed",
    "batch_size",
    "picture_pairs",
    "picture_steps",
    "lora_rank",
    "lora_alpha",
)
"""Settings that no recipe sets."""
EDIT_SETTINGS = ("method", "retain_weight", "uce_tokens", "diversified")
"""Settings of the closed-form edit; the others have no effect on it."""

_PAPER: dict[str, Any] = {
    "objective": "ascent",
    "retain_objective": "denoise",
    "retain_weight": 5.0,
    "paired": False,
    "schedule": "constant",
    "restrict_step": False,
    "warm_start": False,
    "prompt_protection": 0.0,
}
_ESD: dict[str, Any] = {
    **_PAPER,
    "scope": XATTN,
    "objective": ERASE,
    "method": "forget only",
    "negative_guidance": 1.0,
    "retain_weight": 0.0,
}
_UCE: dict[str, Any] = {"method": UCE}

_CHANGES: dict[str, dict[str, Any]] = {
    OURS: {},
    LOOKS: {
        "objective": REMOVE_LOOK,
        "retain_objective": "denoise",  # the original model's own predictions contain the look
        "retain_weight": 5.0,
        "scope": FULL,
        "warm_start": False,
        "prompt_protection": 0.0,
    },
    "RGD (paper)": _PAPER,
    "RG (paper)": {**_PAPER, "diversified": False},
    "GradDiff": {**_PAPER, "method": "GradDiff"},
    "MUNBa": {**_PAPER, "objective": RANDOM_LABEL, "method": "Nash (MUNBa)"},
    "NPO": {**_PAPER, "objective": "NPO", "method": "GradDiff"},
    "SalUn": {
        **_PAPER,
        "objective": RANDOM_LABEL,
        "method": "GradDiff",
        "saliency": 0.5,
        "retain_weight": 0.1,
    },
    "ESD-x": _ESD,
    "ESD-u": {**_ESD, "scope": NOXATTN},
    "ESD-u (2025)": {**_ESD, "scope": NOXATTN_2025},
    "UCE": _UCE,
    "UCE (2025)": {**_UCE, "uce_tokens": LAST_TOKEN},
    "gradient ascent": {**_PAPER, "method": "forget only", "retain_weight": 0.0},
    "fine-tune": {**_PAPER, "method": "retain only", "retain_weight": 0.0},
}
"""Recipe -> its differences from the defaults. All recipes train the model's default scope, except
those of ESD, which define theirs: ESD-x cross-attention, ESD-u everything else. Sources: RG and
RGD, Ko et al. 2024; GradDiff, Liu et al. 2022; MUNBa, Wu and Harandi 2024; NPO, Zhang et al. 2024;
SalUn, Fan et al. 2024; ESD, Gandikota et al. 2023, and the authors' code since April 2025; UCE,
Gandikota et al. 2024, their code of 2023 and since April 2025. Stratified timesteps and the
learning-rate warm-up are additions of this package to all of them."""


_RELATED_CHANGES: dict[str, dict[str, Any]] = {
    "SPEED": {"method": SPEED, "uce_tokens": LAST_TOKEN},
    "after CASE": {"method": CASE, "retain_weight": 0.9},
    "DUO": {
        **_PAPER,
        "scope": LORA_SELF_ATTENTION,
        "objective": PREFER,
        "retain_objective": PRIOR,
        "method": "GradDiff",
        "npo_beta": 0.03,  # their 500 for the mean error, on Stable Diffusion's latents
        "retain_weight": 2e4,  # their 1e6 / 100, and the factor 2 of the objective
    },
    "after I2I": {
        **_PAPER,
        "objective": UNINFORMATIVE,
        "retain_objective": "distill",
        "method": "GradDiff",
    },
    "after epsilon-constrained": {
        **_PAPER,
        "objective": UNINFORMATIVE,
        "retain_objective": "distill",
        "method": LIMITED,
        "retain_weight": 0.05,  # of the frozen model's error may be lost
    },
}
"""Related works, for comparison in the benchmark; forms do not offer them. Sources: SPEED, Li et
al. 2025; CASE, arXiv 2605.25765; DUO, Park et al. 2024; I2I, Li et al. 2024; epsilon-constrained,
Feng et al. 2024. "after" marks those of which a part could not be read or carried over."""


def _settings_of_method(changes: Mapping[str, Any]) -> Mapping[str, Any]:
    settings = UnlearnSettings(**changes)
    names = [field.name for field in fields(settings) if field.name not in FREE]
    if settings.method in EDITS:
        names = list(EDIT_SETTINGS)
    return MappingProxyType({name: getattr(settings, name) for name in names})


RECIPES: Mapping[str, Mapping[str, Any]] = MappingProxyType(
    {name: _settings_of_method(changes) for name, changes in _CHANGES.items()}
)
"""Recipe -> the value of every setting that it sets."""
RELATED: Mapping[str, Mapping[str, Any]] = MappingProxyType(
    {name: _settings_of_method(changes) for name, changes in _RELATED_CHANGES.items()}
)
"""The same for the related works."""
ALL: Mapping[str, Mapping[str, Any]] = MappingProxyType({**RECIPES, **RELATED})


@dataclass(frozen=True)
class RecipeChoice:
    """The recipe chosen in a form or a settings file."""

    recipe: str = choice(
        OURS,
        tuple(RECIPES),
        also=tuple(RELATED),
        help="A complete method. It sets every input that belongs to the method, 'scope' too. You "
        "can change each of them afterwards. 'ours' gives the best results on the demo model. "
        "'look' is for what no word names, such as a watermark: pictures with and without it show "
        "it (kind 'look' of Define Forget Concept). The "
        "others are for comparison: 'RG' and 'RGD' (the paper's method without and with "
        "diversified prompts), 'GradDiff', 'MUNBa', 'NPO', 'SalUn', 'ESD', 'UCE' (takes a second "
        "and needs no pictures), plain gradient ascent and fine-tuning. '2025' marks the method of "
        "the authors' code since 2025. Most of the others need a higher learning rate than 'ours'; "
        "the help page lists it.",
    )

    def __post_init__(self) -> None:
        check_fields(self)


def from_recipe(recipe: str, **changes: Any) -> UnlearnSettings:
    """The settings of a recipe, with changes.

    Raises:
        ValueError: unknown recipe, or a value out of range.
    """
    return UnlearnSettings(**{**ALL[RecipeChoice(recipe).recipe], **changes})


def changes(settings: UnlearnSettings, recipe: str, default_scope: str = AUTO) -> dict[str, Any]:
    """The settings that differ from the recipe, with the recipe's values.

    Args:
        default_scope: the model's, which is no change from ``"auto"``.
    """
    values = dict(ALL[recipe])
    if values.get("scope") == AUTO and settings.scope == default_scope:
        values["scope"] = default_scope
    return {name: value for name, value in values.items() if getattr(settings, name) != value}


def nearest(settings: UnlearnSettings, default_scope: str = AUTO) -> str:
    """The recipe of the same kind (edit or steps) with the fewest differences from the settings;
    the first one if several are equally near."""
    is_edit = settings.method in EDITS
    same_kind = [name for name, each in ALL.items() if (each["method"] in EDITS) == is_edit]
    return min(same_kind, key=lambda recipe: len(changes(settings, recipe, default_scope)))


def describe(
    settings: UnlearnSettings, recipe: str | None = None, default_scope: str = AUTO
) -> str:
    """The recipe's name and the settings that differ from it: ``GradDiff, with scope full``.

    Args:
        recipe: the chosen recipe; None for the nearest.
        default_scope: the model's.
    """
    recipe = recipe or nearest(settings, default_scope)
    names = changes(settings, recipe, default_scope)
    differences = [f"{name} {getattr(settings, name)}" for name in names]
    return f"{recipe}, with {', '.join(differences)}" if differences else recipe
