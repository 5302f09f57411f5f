"""A look that no word names, through the nodes: pictures with and without it, to the report."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from .conftest import QUICK
from .pack import defaults, node_result, run_node, schema_inputs

CAPTIONS = "a cat\na dog\na house"
RECIPE = "look"


@pytest.fixture
def prompts() -> Any:
    concept = node_result("UnlearnForgetConcept", concept="watermark", kind="look")[0]
    return node_result(
        "UnlearnDiversifyPrompts",
        concept=concept,
        templates="a {object}\na picture of a {object}",
        dimensions="object: cat, dog, house, tree",
        train_count=4,
        test_count=2,
    )[0]


def own_pictures(*, mark: bool, seed: int = 0, captions: str = CAPTIONS) -> Any:
    images = torch.rand(3, 32, 32, 3, generator=torch.Generator().manual_seed(seed))
    if mark:
        images[:, -8:, -8:] = 1
    return node_result("UnlearnOwnPictures", images=images, captions=captions)[0]


def of_recipe() -> dict[str, Any]:
    """The inputs as the page fills them in."""
    recipe = schema_inputs("UnlearnRestrictedGradient")["recipe"]
    values = recipe.as_dict()["recipes"][RECIPE]
    return {**defaults("UnlearnRestrictedGradient"), **values, "recipe": RECIPE, **QUICK}


@pytest.mark.parametrize("seed", [0, 1], ids=["twins", "two sets"])
def test_from_pictures_to_the_report(loaded: Any, prompts: Any, seed: int) -> None:
    without = own_pictures(mark=False, seed=seed, captions=CAPTIONS if seed == 0 else "a tree")
    unlearned = node_result(
        "UnlearnRestrictedGradient",
        model=loaded,
        prompts=prompts,
        forget_pictures=own_pictures(mark=True),
        retain_pictures=without,
        **of_recipe(),
    )[0]
    assert len(unlearned.reports) == QUICK["steps"]
    before = dict(loaded.named_parameters())
    assert any(not torch.equal(p, before[n]) for n, p in unlearned.model.named_parameters())
    report, grid, text = node_result(
        "UnlearnEvaluateAlignment",
        unlearned=unlearned,
        pictures=2,
        generation_steps=2,
        probes="quick",
    )
    assert report.concept.kind == "look"
    assert grid.ndim == 4
    assert not report.curves
    assert any("no word names a look: none was made" in line for line in report.missing)
    assert text


def test_the_prompts_of_a_look_do_not_name_it(prompts: Any) -> None:
    for pair in (*prompts.train, *prompts.test):
        assert pair.forget == pair.retain
        assert "watermark" not in pair.forget


def test_a_template_with_the_concept_is_refused() -> None:
    concept = node_result("UnlearnForgetConcept", concept="watermark", kind="look")[0]
    with pytest.raises(ValueError, match=r"contains \{concept\}, but no word names a look"):
        run_node("UnlearnDiversifyPrompts", concept=concept)


@pytest.mark.parametrize("absent", ["forget_pictures", "retain_pictures"])
def test_both_sets_are_needed(absent: str, loaded: Any, prompts: Any) -> None:
    own = {
        "forget_pictures": own_pictures(mark=True),
        "retain_pictures": own_pictures(mark=False),
    }
    del own[absent]
    with pytest.raises(ValueError, match=f"{absent}: no word names the look 'watermark'"):
        run_node("UnlearnRestrictedGradient", model=loaded, prompts=prompts, **own, **of_recipe())


def test_a_recipe_that_needs_a_word_is_refused(loaded: Any, prompts: Any) -> None:
    own = {
        "forget_pictures": own_pictures(mark=True),
        "retain_pictures": own_pictures(mark=False),
    }
    with pytest.raises(ValueError, match="'redirect' replaces words, .* choose the recipe 'look'"):
        run_node("UnlearnRestrictedGradient", model=loaded, prompts=prompts, **own, **QUICK)


def test_the_recipe_look_is_refused_for_a_word(loaded: Any, pairs: Any) -> None:
    with pytest.raises(ValueError, match="'remove look' is for a concept of the kind 'look'"):
        run_node("UnlearnRestrictedGradient", model=loaded, prompts=pairs, **of_recipe())


def test_a_look_is_forgotten_in_a_run_of_its_own(prompts: Any, pairs: Any) -> None:
    with pytest.raises(ValueError, match="'watermark' is a look, .* in a run of its own"):
        run_node(
            "UnlearnDiversifyPrompts",
            concept=pairs.concept,
            templates="a {object} in {concept} style",
            dimensions="object: cat, dog",
            also=prompts,
        )


def test_quick_forget_does_not_offer_a_look() -> None:
    assert "look" not in schema_inputs("UnlearnQuickForget")["kind"].options
