"""SPEED against a least-squares solver, and what its null space promises."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from unlearn_core.dataset.rows import TrainingSets
from unlearn_core.models.load import load_model
from unlearn_core.models.protocol import TOKENS, ModelHandle
from unlearn_core.prompts.pairs import PromptPairs
from unlearn_core.unlearning.methods import begin
from unlearn_core.unlearning.recipes import from_recipe
from unlearn_core.unlearning.speed import (
    NULL,
    PRIOR_RIDGE,
    constrained_change,
    influenced,
    null_projector,
)

RECIPE = from_recipe("SPEED")
OUT, WIDTH = 3, 6
ridges = st.floats(0.05, 5.0)


def draws(seed: int, *shape: int) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(*shape, generator=generator, dtype=torch.float64)


@given(st.integers(0, 2**32), st.integers(1, WIDTH), ridges)
def test_the_change_is_the_least_squares_solution(seed: int, dimensions: int, ridge: float) -> None:
    """The solver finds ``E`` in ``D = E B^T``, where ``B`` is a basis of the null space, from the
    objective written out row by row."""
    weight, prior = draws(seed, OUT, WIDTH), draws(seed + 1, 2, WIDTH)
    targets, anchors = draws(seed + 2, 4, WIDTH), draws(seed + 3, 4, WIDTH)
    basis = torch.linalg.qr(draws(seed + 4, WIDTH, dimensions)).Q
    actual = constrained_change(weight, targets, anchors, basis @ basis.T, prior, ridge)
    count = len(targets) ** 0.5
    system = [
        targets @ basis / count,
        ridge**0.5 * torch.eye(dimensions, dtype=torch.float64),
        prior @ basis / PRIOR_RIDGE**0.5,
    ]
    right = torch.zeros(sum(map(len, system)), OUT, dtype=torch.float64)
    right[: len(targets)] = (anchors - targets) @ weight.T / count
    solution, *_ = np.linalg.lstsq(torch.cat(system).numpy(), right.numpy(), rcond=None)
    expected = torch.from_numpy(solution).T @ basis.T
    torch.testing.assert_close(actual, expected, rtol=1e-7, atol=1e-8)


@given(st.integers(0, 2**32), st.integers(1, WIDTH - 1), ridges)
def test_what_spans_the_rest_of_the_space_does_not_change(
    seed: int, count: int, ridge: float
) -> None:
    preserved = 10 * draws(seed, count, WIDTH)
    projector = null_projector(preserved)
    torch.testing.assert_close(projector @ projector, projector)
    change = constrained_change(
        draws(seed + 1, OUT, WIDTH),
        draws(seed + 2, 4, WIDTH),
        draws(seed + 3, 4, WIDTH),
        projector,
        draws(seed + 4, 2, WIDTH),
        ridge,
    )
    spectrum = torch.linalg.svdvals(preserved) ** 2 / count
    if spectrum.min() >= NULL:  # else a direction counts as unused
        assert (preserved @ change.T).abs().max() < 1e-8 * preserved.abs().max()
    assert change.abs().max() > 0


def test_only_influenced_embeddings_and_their_noisy_copies_remain() -> None:
    """One embedding is the concept itself, another is orthogonal to it and to its anchor."""
    weight = torch.diag(torch.tensor([3.0, 2.0, 1.0], dtype=torch.float64))
    concept, anchor, other = torch.eye(3, dtype=torch.float64)
    preserved = torch.stack([concept, other])
    rows = influenced(weight, concept[None], anchor[None], preserved, 1.0)
    assert torch.equal(rows[0], concept)
    assert len(rows) > 1
    assert torch.equal(rows[:, :2], concept[:2].expand(len(rows), 2)), "noise is where it is weak"
    assert (rows[1:, 2] != 0).all()


def test_a_run_changes_only_the_values_of_cross_attention(
    sd_model: ModelHandle, sets: TrainingSets
) -> None:
    result = begin(sd_model, sets, RECIPE).result()
    changed = result.model.changed_tensors()
    assert changed
    assert all(name.endswith("attn2.to_v.weight") for name in changed)
    assert sd_model.changed_tensors() == {}
    name = next(iter(changed))
    before = dict(sd_model.named_parameters())[name].detach()
    first = sd_model.encode_prompts([""]).text_inputs()[TOKENS][0][0]
    moved, norm = ((changed[name] - before) @ first).norm(), (before @ first).norm()
    assert moved < 0.2 * norm, "the first token of every prompt is protected"
    weaker = begin(sd_model, sets, replace(RECIPE, retain_weight=100.0)).result().model
    change, less = (model.changed_tensors()[name] - before for model in (result.model, weaker))
    assert less.norm() < change.norm()


def test_a_model_without_cross_attention_is_refused(sd3_folder: Path, pairs: PromptPairs) -> None:
    sets = TrainingSets(pairs, (), ())
    with pytest.raises(ValueError, match="method 'SPEED .* values of cross-attention"):
        begin(load_model(sd3_folder), sets, RECIPE)
