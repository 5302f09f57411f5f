"""Complete methods by name."""

from __future__ import annotations

from dataclasses import fields, replace

import pytest

from unlearn_core.foundation.fields import Choice, settings_of
from unlearn_core.unlearning.recipes import (
    ALL,
    EDIT_SETTINGS,
    FREE,
    OURS,
    RELATED,
    RecipeChoice,
    changes,
    describe,
    from_recipe,
    nearest,
)
from unlearn_core.unlearning.settings import EDITS, UCE, UnlearnSettings

NAMES = {field.name for field in fields(UnlearnSettings)}


@pytest.mark.parametrize("recipe", ALL)
def test_a_recipe_is_complete_and_is_recognised_by_its_settings(recipe: str) -> None:
    settings = from_recipe(recipe, steps=7, seed=3)
    names = set(ALL[recipe])
    assert names == (set(EDIT_SETTINGS) if settings.method in EDITS else NAMES - set(FREE))
    assert (settings.steps, settings.seed) == (7, 3)
    assert changes(settings, recipe) == {}
    assert nearest(settings) == recipe
    assert describe(settings) == recipe


def test_recipes_differ() -> None:
    settings = [from_recipe(recipe) for recipe in ALL]
    assert len(set(settings)) == len(ALL)


def test_ours_is_the_default() -> None:
    assert from_recipe(OURS) == UnlearnSettings()


def test_a_change_is_described_relative_to_the_recipe() -> None:
    settings = from_recipe("GradDiff", scope="full", retain_weight=1.5)
    assert changes(settings, "GradDiff") == {"scope": "auto", "retain_weight": 5.0}
    assert describe(settings) == "GradDiff, with scope full, retain_weight 1.5"
    assert describe(settings, "SalUn") == (
        "SalUn, with objective ascent, scope full, retain_weight 1.5, saliency 1.0"
    )
    ours = describe(replace(UnlearnSettings(), warm_start=False))
    assert ours == "ours, with warm_start False"


def test_the_models_default_scope_is_no_change_from_auto() -> None:
    settings = from_recipe(OURS, scope="xattn")
    assert describe(settings, default_scope="xattn") == "ours"
    assert describe(settings, default_scope="text path") == "ours, with scope xattn"
    assert describe(from_recipe("ESD-x"), default_scope="text path") == "ESD-x"


def test_settings_that_do_not_affect_an_edit_are_not_reported_as_changes() -> None:
    edit = UnlearnSettings(method=UCE, schedule="constant", saliency=0.5)
    assert describe(edit) == "UCE"


def test_the_baselines_agree_with_their_papers() -> None:
    """The settings in which each differs from plain gradient difference."""
    base = from_recipe("GradDiff")
    differences = {
        name: {key for key in changes(base, name) if key != "retain_weight"}
        for name in ("RGD (paper)", "RG (paper)", "NPO", "SalUn", "MUNBa", "ESD-x", "ESD-u")
    }
    assert differences == {
        "RGD (paper)": {"method"},
        "RG (paper)": {"method", "diversified"},
        "NPO": {"objective"},
        "SalUn": {"objective", "saliency"},
        "MUNBa": {"objective", "method"},
        "ESD-x": {"objective", "method", "negative_guidance", "scope"},
        "ESD-u": {"objective", "method", "negative_guidance", "scope"},
    }


def test_an_unknown_recipe_is_refused() -> None:
    with pytest.raises(ValueError, match="recipe must be one of 'ours', .*, got 'best'"):
        from_recipe("best")
    with pytest.raises(ValueError, match="truncation must be positive, got 0"):
        from_recipe("RG (paper)", truncation=0)


def test_forms_do_not_offer_the_related_works() -> None:
    recipe = settings_of(RecipeChoice)["recipe"].kind
    assert isinstance(recipe, Choice)
    assert not set(RELATED) & set(recipe.options)
    for name, setting in settings_of(UnlearnSettings).items():
        if isinstance(setting.kind, Choice):
            offered = {getattr(from_recipe(each), name) for each in recipe.options}
            assert offered <= set(setting.kind.options), name
