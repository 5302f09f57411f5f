"""Unlearning of Stable Diffusion 3 and Flux, saved as a LoRA that diffusers reads, and as a
folder."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from diffusers import FluxPipeline, StableDiffusion3Pipeline
from torch import Tensor

from unlearn_core.dataset.settings import GenerationSettings
from unlearn_core.dataset.training_sets import make_training_sets
from unlearn_core.models.load import load_model
from unlearn_core.models.protocol import ModelHandle
from unlearn_core.prompts.pairs import PromptPairs
from unlearn_core.saving.diffusers_folder import save_diffusers_folder
from unlearn_core.saving.lora import save_lora
from unlearn_core.unlearning.methods import begin
from unlearn_core.unlearning.results import UnlearnedModel
from unlearn_core.unlearning.settings import UCE, UnlearnSettings

PIPELINES: dict[str, Any] = {"sd3": StableDiffusion3Pipeline, "flux": FluxPipeline}


@pytest.fixture(params=PIPELINES)
def folder(request: pytest.FixtureRequest, sd3_t5_folder: Path, flux_folder: Path) -> Path:
    return {"sd3": sd3_t5_folder, "flux": flux_folder}[request.param]


def unlearn(folder: Path, pairs: PromptPairs, **settings: Any) -> UnlearnedModel:
    model = load_model(folder)
    sets = make_training_sets(model, pairs, GenerationSettings(steps=2))
    settings = {"steps": 3, "learning_rate": 0.05, "batch_size": 4, **settings}
    run = begin(model, sets, UnlearnSettings(**settings))
    for _ in run:
        pass
    return run.result()


@torch.no_grad()
def prediction(model: ModelHandle) -> Tensor:
    latents = torch.randn(2, *model.latent_shape, generator=torch.Generator().manual_seed(0))
    prompts = model.encode_prompts(["a cat indoors", "a dog at night"])
    return model.predict(latents, prompts, model.times(torch.tensor([0.3, 0.8])))


@pytest.mark.parametrize("scope", ["lora", "lora, text path", "lora, attention", "attention"])
def test_a_lora_gives_the_same_model_in_diffusers(
    folder: Path, pairs: PromptPairs, tmp_path: Path, scope: str
) -> None:
    unlearned = unlearn(folder, pairs, scope=scope)
    after = prediction(unlearned.model)
    before = prediction(unlearned.base)
    assert (after - before).abs().max() > 0.01 * before.std()

    saved = save_lora(unlearned, tmp_path / "without-cat.safetensors", rank=64)
    kind = PIPELINES[unlearned.base.info.family]
    fresh: Any = load_model(folder)
    alphas: dict[str, Any] = {"network_alphas": None} if kind is FluxPipeline else {}
    kind.load_lora_into_transformer(
        kind.lora_state_dict(str(saved.path)), transformer=fresh.denoiser, **alphas
    )
    # A scope with vectors (biases, norms) is saved without them, and says how much that leaves.
    assert saved.captured > (0.999 if scope.startswith("lora") else 0.5)
    tolerance = 1e-4 if scope.startswith("lora") else 0.5 * (after - before).abs().max().item()
    torch.testing.assert_close(prediction(fresh), after, atol=tolerance, rtol=1e-3)


@pytest.mark.parametrize("scope", ["auto", "text path"])
def test_a_folder_is_the_same_model_again(
    folder: Path, pairs: PromptPairs, tmp_path: Path, scope: str
) -> None:
    unlearned = unlearn(folder, pairs, scope=scope)
    assert unlearned.settings.scope == ("lora, text path" if scope == "auto" else scope)
    assert set(unlearned.model.changed_tensors()) <= set(unlearned.base.parameters_in("text path"))
    copy = load_model(save_diffusers_folder(unlearned, tmp_path / "without-cat"))
    torch.testing.assert_close(prediction(copy), prediction(unlearned.model))


def test_the_closed_form_edit_draws_the_replacement(sd3_folder: Path, pairs: PromptPairs) -> None:
    unlearned = unlearn(sd3_folder, pairs, method=UCE, retain_weight=0.1)
    assert set(unlearned.model.changed_tensors()) == {
        "context_embedder.weight",
        "time_text_embed.text_embedder.linear_1.weight",
    }

    def distance(model: ModelHandle) -> float:
        """Mean distance between the predictions for the two prompts of a pair."""
        forget, retain = ([getattr(p, side) for p in pairs.train] for side in ("forget", "retain"))
        shape = (len(forget), *model.latent_shape)
        latents = torch.randn(shape, generator=torch.Generator().manual_seed(0))
        t = model.times(torch.tensor([0.7]).expand(len(forget)))
        with torch.no_grad():
            concept, parallel = (
                model.predict(latents, model.encode_prompts(prompts), t)
                for prompts in (forget, retain)
            )
        return (concept - parallel).flatten(1).norm(dim=1).mean().item()

    assert distance(unlearned.model) < 0.7 * distance(unlearned.base)
