"""Prompts of Stable Diffusion 3: the core's own encoder agrees with ComfyUI's on equal weights."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from transformers import CLIPTextConfig, CLIPTextModelWithProjection

from unlearn_core.models.flow_text import StableDiffusion3Text
from unlearn_core.models.text import Clip, clip_tokenizer

from ..pack import COMFYUI  # makes ComfyUI's modules importable

# isort: split
from comfy.text_encoders.sd3_clip import SD3ClipModel, SD3Tokenizer

WIDTH, FULL = 16, 4096  # of each CLIP, and of ComfyUI's context
CLIP: dict[str, Any] = {
    "hidden_size": WIDTH, "intermediate_size": 32, "num_attention_heads": 2,
    "num_hidden_layers": 3, "projection_dim": WIDTH,
}  # fmt: skip
assert COMFYUI
LONG = ", ".join(f"{word} number {i}" for i in range(8) for word in ("tree", "cloud", "bird"))


def both_encoders() -> tuple[StableDiffusion3Text, SD3ClipModel]:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        config = CLIPTextConfig(**CLIP, eos_token_id=49407)
        first, second = (CLIPTextModelWithProjection(config).eval() for _ in range(2))
    first.text_projection.weight.data.copy_(torch.eye(WIDTH))  # as in the published models
    clips = (Clip(first, clip_tokenizer()), Clip(second, clip_tokenizer("!")))
    options = {f"clip_{part}_model_config": {**CLIP, "hidden_act": "quick_gelu"} for part in "lg"}
    theirs = SD3ClipModel(t5=False, device="cpu", dtype=torch.float32, model_options=options)
    for ours, their in zip((first, second), (theirs.clip_l, theirs.clip_g), strict=True):
        assert their is not None
        state = {
            name if name.startswith("text_") else f"text_model.{name}": tensor
            for name, tensor in ours.state_dict().items()
        }
        their.transformer.load_state_dict(state)
    return StableDiffusion3Text(clips, None, FULL), theirs


@torch.no_grad()
@pytest.mark.parametrize(
    "prompt",
    ["", "a cat in (ink:1.3) style", LONG, f"({LONG}:1.1), a cat in (ink:0.7) style", "w " * 75],
)
def test_syntax_and_long_prompts(prompt: str) -> None:
    ours, theirs = both_encoders()
    ours.check([prompt])
    inputs = ours.encode([prompt, "a dog"]).text_inputs()
    values, pooled, _ = theirs.encode_token_weights(SD3Tokenizer().tokenize_with_weights(prompt))
    torch.testing.assert_close(inputs["tokens"][0], values[0], rtol=1e-4, atol=1e-4)
    torch.testing.assert_close(inputs["pooled"][0], pooled, rtol=1e-4, atol=1e-4)
