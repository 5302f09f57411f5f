"""Stable Diffusion 3 and Flux from diffusers folders, against diffusers' own pipelines."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from diffusers import FluxPipeline, StableDiffusion3Pipeline
from scipy.stats import norm
from torch import Tensor

from unlearn_core.models.denoiser import seeded_noise
from unlearn_core.models.flow import FlowSchedule, schedule_of
from unlearn_core.models.flux import FluxHandle
from unlearn_core.models.load import load_model
from unlearn_core.models.options import LoadOptions
from unlearn_core.models.stable_diffusion_3 import StableDiffusion3Handle

from ..embeddings import embeddings

PROMPTS = ("a cat in ink style", "a house by the sea")
STEPS, GUIDANCE = 4, 3.0


@pytest.fixture(params=["sd3", "sd3-t5"])
def sd3(request: pytest.FixtureRequest, sd3_folder: Path, sd3_t5_folder: Path) -> Path:
    return {"sd3": sd3_folder, "sd3-t5": sd3_t5_folder}[request.param]


@pytest.fixture(params=["dev", "schnell"])
def flux(request: pytest.FixtureRequest, flux_folder: Path, schnell_folder: Path) -> Path:
    return {"dev": flux_folder, "schnell": schnell_folder}[request.param]


def pipeline_of(kind: Any, folder: Path) -> Any:
    index = json.loads((folder / "model_index.json").read_text(encoding="utf-8"))
    absent = {name: None for name, part in index.items() if part == [None, None]}
    pipeline = kind.from_pretrained(folder, **absent)
    pipeline.set_progress_bar_config(disable=True)
    return pipeline


def test_sd3_encodes_prompts_as_the_pipeline(sd3: Path) -> None:
    model, pipeline = load_model(sd3), pipeline_of(StableDiffusion3Pipeline, sd3)
    assert isinstance(model, StableDiffusion3Handle)
    for prompt in (*PROMPTS, ""):
        values, _, pooled, _ = pipeline.encode_prompt(
            prompt, prompt, prompt, do_classifier_free_guidance=False
        )
        encoded = embeddings(model.encode_prompts([prompt]))
        rows = encoded.values.shape[1]
        assert rows == (77 if model.text.t5 is None else 77 + 256)
        torch.testing.assert_close(encoded.values, values[:, :rows])
        torch.testing.assert_close(encoded.pooled, pooled)
        assert not values[:, rows:].any()  # the pipeline's rows in place of T5's


@torch.no_grad()
def test_sd3_predicts_short_and_long_prompts_together_as_alone(sd3: Path) -> None:
    model = load_model(sd3)
    prompts = ["a cat", "a cat, " * 40, "a house", "a dog on a table " * 40]  # 1, 2, 1, 3 chunks
    latents, t = seeded_noise(range(4), model.latent_shape), torch.tensor([0.1, 0.4, 0.7, 0.9])
    both = model.encode_prompts(prompts)
    lengths = [len(row) for row in both.text_inputs()["tokens"]]
    assert [length - lengths[0] for length in lengths] == [0, 77, 0, 154]
    alone = torch.cat(
        [
            model.predict(latents[[i]], model.encode_prompts([prompt]), t[[i]])
            for i, prompt in enumerate(prompts)
        ]
    )
    torch.testing.assert_close(model.predict(latents, both, t), alone)
    one_by_one = type(both).joined([both[[3]], both[[0, 2]], both[[1]]])
    mixed = model.predict(latents[[3, 0, 2, 1]], one_by_one, t[[3, 0, 2, 1]])
    torch.testing.assert_close(mixed, alone[[3, 0, 2, 1]])
    one, other = (model.sample([prompts[1]], [5], steps=2, guidance_scale=g) for g in (1.0, 3.0))
    assert not torch.allclose(one, other)


def test_sd3_draws_as_the_pipeline(sd3: Path) -> None:
    model, pipeline = load_model(sd3), pipeline_of(StableDiffusion3Pipeline, sd3)
    latents = seeded_noise([5], model.latent_shape)
    prompt, empty = (embeddings(model.encode_prompts([p])) for p in (PROMPTS[0], ""))
    expected = pipeline(
        prompt_embeds=prompt.values, pooled_prompt_embeds=prompt.pooled,
        negative_prompt_embeds=empty.values, negative_pooled_prompt_embeds=empty.pooled,
        num_inference_steps=STEPS, guidance_scale=GUIDANCE, latents=latents,
        height=16, width=16, output_type="latent",
    ).images  # fmt: skip
    drawn = model.sample(PROMPTS[:1], [5], steps=STEPS, guidance_scale=GUIDANCE)
    torch.testing.assert_close(drawn, expected, atol=1e-5, rtol=1e-4)


def test_flux_encodes_prompts_as_the_pipeline(flux: Path) -> None:
    model, pipeline = load_model(flux), pipeline_of(FluxPipeline, flux)
    assert isinstance(model, FluxHandle)
    assert model.text.t5 is not None
    for prompt in PROMPTS:
        values, pooled, _ = pipeline.encode_prompt(
            prompt, prompt, max_sequence_length=model.text.t5.length
        )
        encoded = embeddings(model.encode_prompts([prompt]))
        torch.testing.assert_close(encoded.values, values, atol=1e-4, rtol=1e-4)
        torch.testing.assert_close(encoded.pooled, pooled)


def test_flux_draws_as_the_pipeline(flux: Path) -> None:
    model, pipeline = load_model(flux), pipeline_of(FluxPipeline, flux)
    assert isinstance(model, FluxHandle)
    assert model.text.t5 is not None
    latents = seeded_noise([5], model.latent_shape)  # [1, C, h, w]
    packed = pipeline._pack_latents(latents, 1, *model.latent_shape)
    result = pipeline(
        PROMPTS[0], num_inference_steps=STEPS, guidance_scale=GUIDANCE, latents=packed,
        height=16, width=16, output_type="latent", max_sequence_length=model.text.t5.length,
    ).images  # fmt: skip
    expected = pipeline._unpack_latents(result, 16, 16, pipeline.vae_scale_factor)
    drawn = model.sample(PROMPTS[:1], [5], steps=STEPS, guidance_scale=GUIDANCE)
    torch.testing.assert_close(drawn, expected, atol=1e-5, rtol=1e-4)


def test_dev_draws_by_its_guidance_and_schnell_does_not(
    flux_folder: Path, schnell_folder: Path
) -> None:
    def draw(folder: Path, guidance: float) -> Tensor:
        return load_model(folder).sample(PROMPTS[:1], [0], steps=2, guidance_scale=guidance)

    assert not torch.allclose(draw(flux_folder, 2.0), draw(flux_folder, 5.0), atol=1e-6)
    assert torch.equal(draw(schnell_folder, 2.0), draw(schnell_folder, 5.0))


@pytest.mark.parametrize("shift", [1.0, 3.0])
def test_times_are_logit_normal_and_shifted(shift: float) -> None:
    """Against the cumulative distribution, solved for the time before the shift."""
    levels = torch.linspace(0.01, 0.99, 50)
    t = FlowSchedule(shift).times(levels)
    before = t / (shift - (shift - 1) * t)
    assert torch.logit(before).numpy() == pytest.approx(norm.ppf(levels.numpy()), abs=1e-4)
    uniform = FlowSchedule(shift, logit_normal=False).times(levels)
    torch.testing.assert_close(uniform / (shift - (shift - 1) * uniform), levels)


def test_a_resolution_dependent_shift_is_that_of_the_scheduler() -> None:
    config = {"use_dynamic_shifting": True, "shift": 3.0}
    assert schedule_of(config, 256).shift == pytest.approx(2.718281828**0.5)
    assert schedule_of(config, 4096).shift == pytest.approx(2.718281828**1.15)
    assert schedule_of({"shift": 3.0}, 4096).shift == 3.0


def test_scopes_of_joint_attention(sd3_folder: Path, flux_folder: Path) -> None:
    for folder in (sd3_folder, flux_folder):
        model = load_model(folder)
        assert model.default_scope == "lora, text path"
        text = set(model.parameters_in("text path"))
        latents = torch.randn(1, *model.latent_shape)
        cat, dog = (model.encode_prompts([p]) for p in PROMPTS)
        # The text path is all that can tell two prompts apart: nulling what it hands over to
        # joint attention leaves one prediction.
        silenced = model.trainable_copy(sorted(text))
        with torch.no_grad():
            for name, parameter in silenced.named_parameters():
                if name in text:
                    parameter.zero_()
            t = model.times(torch.tensor([0.5]))
            assert not torch.allclose(
                model.predict(latents, cat, t), model.predict(latents, dog, t)
            )
            left, right = (silenced.predict(latents, c, t) for c in (cat, dog))
        torch.testing.assert_close(left, right)
        assert model.parameters_in("xattn") == []
        low_rank = set(model.parameters_in("lora, text path"))
        assert low_rank < text
        assert all(name.endswith(".weight") for name in low_rank)
        assert low_rank - set(model.parameters_in("lora")) == {
            name for name in low_rank if "embedder" in name
        }


def test_a_text_edit_needs_tokens_of_the_concepts_own(
    sd3_folder: Path, sd3_t5_folder: Path, flux_folder: Path
) -> None:
    assert load_model(sd3_folder).text_projections() == {
        "context_embedder.weight": "tokens",
        "time_text_embed.text_embedder.linear_1.weight": "pooled",
    }
    for folder in (sd3_t5_folder, flux_folder):
        assert load_model(folder).text_projections() == {}


def test_mixed_precision_predicts_nearly_the_same(sd3_folder: Path, flux_folder: Path) -> None:
    for folder in (sd3_folder, flux_folder):
        exact, mixed = (
            load_model(folder),
            load_model(folder, options=LoadOptions(precision="mixed")),
        )
        assert mixed.info.mixed
        latents = seeded_noise([0, 1], exact.latent_shape)
        t = exact.times(torch.tensor([0.2, 0.8]))
        with torch.no_grad():
            one, other = (m.predict(latents, m.encode_prompts(PROMPTS), t) for m in (exact, mixed))
        assert other.dtype == torch.float32
        assert (one - other).abs().max() < 0.1 * one.abs().max()
