"""EmojiCanvas-Flow: shapes, the training's parts, and the saved folder in diffusers."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from diffusers import StableDiffusion3Pipeline

from demo.autoencoder import new_autoencoder
from demo.flow import (
    PADDING,
    SHAPE,
    SHIFT,
    TEXT_WIDTH,
    FlowDenoiser,
    new_scheduler,
    padded_by_zero,
    save_flow,
)
from demo.flow_training import (
    Training,
    flow_loss,
    load_state,
    new_optimizers,
    noise_levels,
    save_state,
    train_flow,
    update_weights,
)
from demo.pictures import make_pool
from unlearn_core.models.text import clip_tokenizer

from ..tiny_models import tokenize

PROMPTS = ["", "a cat in ink style on a pink background"]
LIMIT = 12_500_000  # parameters, 25 MB in fp16


@pytest.fixture(scope="module")
def model() -> FlowDenoiser:
    torch.manual_seed(0)
    model = FlowDenoiser().eval()
    for parameter in model.transformer.parameters():  # the zeros of a new one would hide faults
        if parameter.ndim == 2 and not parameter.any():
            torch.nn.init.normal_(parameter, std=0.05)
    return model


def test_all_weights_fit_into_25_mb(model: FlowDenoiser) -> None:
    parts = model, new_autoencoder(SHAPE)
    assert sum(p.numel() for part in parts for p in part.parameters()) < LIMIT


def test_a_new_model_predicts_no_velocity() -> None:
    tokens = tokenize(clip_tokenizer(), PROMPTS)
    output = FlowDenoiser()(torch.randn(2, 8, 16, 16), torch.tensor([0.2, 0.9]), tokens)
    assert torch.equal(output, torch.zeros(2, 8, 16, 16))


def test_the_second_encoder_gets_the_tokens_of_the_second_tokenizer() -> None:
    first, second = (tokenize(clip_tokenizer(padding), PROMPTS) for padding in PADDING)
    assert not torch.equal(first, second)
    assert torch.equal(padded_by_zero(first), second)


def test_noise_levels_are_logit_normal_and_shifted() -> None:
    sigmas = noise_levels(10_001, torch.device("cpu"))
    assert 0 < sigmas.min() < sigmas.max() < 1
    # The median of the logit-normal distribution is 1/2.
    assert sigmas.median().item() == pytest.approx(SHIFT / (SHIFT + 1), abs=1e-3)


def test_training_lowers_the_loss_on_one_batch() -> None:
    torch.manual_seed(0)
    model, training = FlowDenoiser(), Training(steps=20, warm_up=1, decay=1, batch_size=8)
    optimizers = new_optimizers(model, training)
    latents = torch.randn(1, 8, 1, 1).expand(8, -1, 16, 16).contiguous()
    tokens = tokenize(clip_tokenizer(), PROMPTS[1:]).expand(8, -1)
    losses = []
    for step in range(training.steps):
        loss = flow_loss(model, latents, tokens)
        update_weights(model, optimizers, loss, training.rate_factor(step))
        losses.append(loss.item())
    assert losses[-1] < 0.7 * losses[0]


def test_a_training_continues_from_its_saved_state(tmp_path: Path) -> None:
    model, training = FlowDenoiser(), Training(steps=4, batch_size=2)
    parts = [model, *new_optimizers(model, training)]
    tokens = tokenize(clip_tokenizer(), PROMPTS)
    update_weights(model, parts[1:], flow_loss(model, torch.randn(2, 8, 16, 16), tokens), 1.0)
    save_state(tmp_path / "state.pt", parts, 1, 2.5)
    other = FlowDenoiser()
    others = [other, *new_optimizers(other, training)]
    assert load_state(tmp_path / "missing.pt", others) == (0, 0.0)
    assert load_state(tmp_path / "state.pt", others) == (1, 2.5)
    torch.testing.assert_close(other.state_dict(), model.state_dict(), rtol=0, atol=0)
    for saved, loaded in zip(parts[1:], others[1:], strict=True):
        assert saved.state_dict()["state"]
        torch.testing.assert_close(
            loaded.state_dict()["state"], saved.state_dict()["state"], rtol=0, atol=0
        )


def test_the_rate_rises_stays_and_falls() -> None:
    training = Training(steps=100, warm_up=10, decay=50)
    factors = [training.rate_factor(step) for step in (0, 9, 50, 75, 99)]
    assert factors == pytest.approx([0.1, 1.0, 1.0, 0.5, 0.02])


def test_a_whole_training_runs_and_does_not_repeat_finished_steps(tmp_path: Path) -> None:
    pool = make_pool(4, 0, tmp_path, size=16)
    run: dict[str, Any] = {
        "training": Training(steps=2, batch_size=2),
        "device": torch.device("cpu"),
        "state_file": tmp_path / "state.pt",
    }
    average = train_flow(pool, torch.randn(4, 8, 16, 16), **run)
    again = train_flow(pool, torch.randn(4, 8, 16, 16), **run)
    torch.testing.assert_close(again.state_dict(), average.state_dict(), rtol=0, atol=0)


def test_diffusers_opens_the_folder_and_draws_with_it(model: FlowDenoiser, tmp_path: Path) -> None:
    vae = new_autoencoder(SHAPE)
    vae.register_to_config(shift_factor=0.1, scaling_factor=0.7)
    save_flow(model, vae, tmp_path)
    assert sum(f.stat().st_size for f in tmp_path.rglob("*.safetensors")) < 25e6
    parts: Any = {"text_encoder_3": None, "tokenizer_3": None, "torch_dtype": torch.float32}
    pipeline: Any = StableDiffusion3Pipeline.from_pretrained(tmp_path, **parts)
    assert pipeline.scheduler.config.shift == new_scheduler().config["shift"]
    assert (pipeline.vae.config.shift_factor, pipeline.vae.config.scaling_factor) == (0.1, 0.7)
    # Ours are the pipeline's embeddings without the zeros in place of T5's.
    embeddings, empty, pooled, empty_pooled = pipeline.encode_prompt(PROMPTS[1], None, None)
    with torch.no_grad():
        ours, ours_pooled = model.encode(tokenize(clip_tokenizer(), PROMPTS))
    both, both_pooled = torch.cat([empty, embeddings]), torch.cat([empty_pooled, pooled])
    torch.testing.assert_close(both[:, :77, : 2 * TEXT_WIDTH], ours, rtol=0.01, atol=0.01)
    torch.testing.assert_close(both_pooled, ours_pooled, rtol=0.01, atol=0.01)
    assert not both[:, 77:].any()
    picture = pipeline(
        prompt_embeds=ours[1:],
        negative_prompt_embeds=ours[:1],
        pooled_prompt_embeds=ours_pooled[1:],
        negative_pooled_prompt_embeds=ours_pooled[:1],
        num_inference_steps=2,
        output_type="np",
    ).images
    assert picture.shape == (1, 128, 128, 3)
