"""CASE against the properties of its projectors, and what it records in a real tiny model."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from unlearn_core.dataset.rows import TrainingSets
from unlearn_core.foundation.progress import Progress
from unlearn_core.models.protocol import ModelHandle
from unlearn_core.models.stable_diffusion import StableDiffusionHandle
from unlearn_core.unlearning.case import (
    CONCEPT_VARIANCE,
    attention_outputs,
    erasing,
    principal_projector,
    recorded,
)
from unlearn_core.unlearning.methods import begin
from unlearn_core.unlearning.recipes import from_recipe

RECIPE = from_recipe("after CASE")
WIDTH = 6


def draws(seed: int, *shape: int) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(*shape, generator=generator, dtype=torch.float64)


@given(st.integers(0, 2**32), st.integers(1, 9), st.floats(0.01, 0.99))
def test_the_projector_takes_the_fewest_directions(seed: int, count: int, variance: float) -> None:
    """Against the eigenvectors of the second moments."""
    rows = draws(seed, count, WIDTH)
    projector = principal_projector(rows, variance)
    torch.testing.assert_close(projector @ projector, projector)
    values, vectors = torch.linalg.eigh(rows.T @ rows)
    rank = round(projector.trace().item())
    largest = vectors[:, WIDTH - rank :]
    torch.testing.assert_close(projector, largest @ largest.T)
    explained, total = values[WIDTH - rank :].sum(), values.sum()
    assert explained >= variance * total * (1 - 1e-9)
    assert explained - values[WIDTH - rank] < variance * total


@given(st.integers(0, 2**32), st.integers(1, 4), st.integers(1, 4))
def test_it_is_the_identity_on_what_is_preserved_and_removes_the_rest_of_the_concept(
    seed: int, forget_count: int, retain_count: int
) -> None:
    forget, retain = draws(seed, forget_count, WIDTH), draws(seed + 1, retain_count, WIDTH)
    eraser = erasing(forget, retain, 1.0)
    torch.testing.assert_close(retain @ eraser.T, retain, rtol=1e-7, atol=1e-8)
    concept = principal_projector(forget, CONCEPT_VARIANCE)
    rest = torch.eye(WIDTH, dtype=forget.dtype) - principal_projector(retain, 1.0)
    torch.testing.assert_close(eraser @ rest, (torch.eye(WIDTH) - concept) @ rest)
    nothing_preserved = erasing(forget, retain, 0.0) @ concept
    assert nothing_preserved.abs().max() < 1e-9


@given(st.integers(0, 2**32))
def test_no_other_matrix_that_preserves_is_closer(seed: int) -> None:
    """Any other matrix that is the identity on the preserved directions differs from it by ``X``
    with ``X P_R = 0``."""
    forget, retain = draws(seed, 2, WIDTH), draws(seed + 1, 3, WIDTH)
    identity = torch.eye(WIDTH, dtype=forget.dtype)
    goal = identity - principal_projector(forget, CONCEPT_VARIANCE)
    eraser, preserved = erasing(forget, retain, 1.0), principal_projector(retain, 1.0)
    other = eraser + draws(seed + 2, WIDTH, WIDTH) @ (identity - preserved)
    torch.testing.assert_close(other @ retain.T, retain.T)
    assert (eraser - goal).norm() < (other - goal).norm()


def test_it_records_the_input_of_each_output_projection(sd_model: ModelHandle) -> None:
    """The projection is linear: that of the recorded mean is the mean of the layer's output."""
    assert isinstance(sd_model, StableDiffusionHandle)
    layer = "mid_block.attentions.0.transformer_blocks.0.attn2"
    outputs: list[Tensor] = []
    module = sd_model.denoiser.get_submodule(f"{layer}.to_out.0")
    handle = module.register_forward_hook(lambda _m, _i, output: outputs.append(output))
    latents = torch.randn(4, *sd_model.latent_shape, generator=torch.Generator().manual_seed(0))
    prompts = sd_model.encode_prompts(["", "", "a cat", "a dog"])
    with torch.no_grad(), recorded(sd_model.denoiser, 2) as rows:
        sd_model.predict(latents, prompts, sd_model.times(torch.full((4,), 0.5)))
    handle.remove()
    expected = outputs[0][2:].mean(1).double()
    (actual,) = rows[layer]
    weight, bias = module.weight.detach().double(), module.bias.detach().double()
    torch.testing.assert_close(actual @ weight.T + bias, expected, rtol=1e-4, atol=1e-5)
    sd_model.predict(latents, prompts, sd_model.times(torch.full((4,), 0.5)))
    assert len(rows[layer]) == 1, "nothing is recorded any more"


def test_a_run_changes_keys_and_values_and_counts_what_it_draws(
    sd_model: ModelHandle, sets: TrainingSets
) -> None:
    progress = Progress()
    result = begin(sd_model, sets, RECIPE, progress).result()
    changed = set(result.model.changed_tensors())
    assert changed
    assert all(name.endswith(("attn2.to_k.weight", "attn2.to_v.weight")) for name in changed)
    prompts = {pair.forget for pair in sets.pairs.train}, {pair.retain for pair in sets.pairs.train}
    assert progress.passes["unlearning"] == sum(map(len, prompts)) * 10 * 2
    assert isinstance(sd_model, StableDiffusionHandle)
    rows = attention_outputs(sd_model, ["a cat"], Progress())
    assert all(layer.shape[0] == 10 for layer in rows.values()), "one row per step"


def test_a_share_above_one_is_refused(sd_model: ModelHandle, sets: TrainingSets) -> None:
    with pytest.raises(ValueError, match="retain_weight must be at most 1 for method 'CASE"):
        begin(sd_model, sets, replace(RECIPE, retain_weight=1.5))
