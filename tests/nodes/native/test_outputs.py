"""Restricted Gradient Unlearn's outputs in ComfyUI's own types: MODEL, LORA_MODEL, strengths."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from comfy_execution.graph_utils import ExecutionBlocker

from ..conftest import QUICK, FakeServer
from ..pack import comfyui_nodes, node_result
from .test_training import bits, equal

# isort: split
from comfy_extras.nodes_train import LoraModelLoader

# isort: split

UNLEARN, FROM = "UnlearnRestrictedGradient", "UnlearnFromComfyUI"
PROMPT = "a cat in ink style"
STOCK = getattr(comfyui_nodes, "NODE_CLASS_MAPPINGS")  # noqa: B009 - as in `pack`


@pytest.fixture(scope="module")
def demo() -> tuple[Any, Any, Any]:
    """MODEL, CLIP and VAE of EmojiCanvas."""
    return tuple(node_result("UnlearnDemoModel", model="EmojiCanvas"))


def inputs(demo: tuple[Any, Any, Any], pairs: Any, **widgets: Any) -> dict[str, Any]:
    given, clip, vae = demo
    model = node_result(FROM, model=given, clip=clip, vae=vae, image_size=64)[0]
    settings = {**QUICK, "learning_rate": 0.01, "method": "forget only", "lora_rank": 4}
    return {"model": model, "prompts": pairs, **settings, **widgets}


def prediction(model: Any, clip: Any) -> torch.Tensor:
    """By ComfyUI's own means: one step of a stock sampler."""
    latent = {"samples": torch.zeros(1, 4, 16, 16)}
    with torch.inference_mode():
        positive = STOCK["CLIPTextEncode"]().encode(clip, PROMPT)[0]
        drawn = STOCK["KSampler"]().sample(
            model, 1, 2, 1.0, "euler", "simple", positive, positive, latent, 1.0
        )
    return drawn[0]["samples"]


def test_model_and_lora_change_with_strength_without_training_again(
    demo: tuple[Any, Any, Any], pairs: Any, page: FakeServer
) -> None:
    before, clip = bits(demo[0]), demo[1]
    linked = inputs(demo, pairs)
    unlearned, _, _, model, lora, strip = node_result(UNLEARN, **linked)
    trained = len(page.steps)
    original, changed = prediction(demo[0], clip), prediction(model, clip)
    assert not torch.allclose(original, changed, atol=1e-3)

    none = node_result(UNLEARN, **linked, strength=0.0)
    half = node_result(UNLEARN, **linked, strength=0.5)
    assert len(page.steps) == trained  # nothing was trained again
    assert torch.equal(prediction(none[3], clip), original)
    between = prediction(half[3], clip)
    assert 0 < (between - original).norm() < (changed - original).norm()
    assert torch.equal(half[5], strip)  # neither was the strip drawn again
    assert equal(bits(demo[0]), before)

    # The stock node adds the LoRA to the model that was given.
    result = LoraModelLoader.execute(demo[0], lora, 1.0).result
    assert result is not None
    loaded = result[0]
    torch.testing.assert_close(prediction(loaded, clip), changed)
    assert len(lora) == 3 * len(unlearned.model.lora_layers())


def test_the_strip_shows_four_strengths(demo: tuple[Any, Any, Any], pairs: Any) -> None:
    strip = node_result(UNLEARN, **inputs(demo, pairs, seed=3))[5][0]  # [H, W, 3]
    width = strip.shape[1] // 4
    pictures = [strip[:128, i * width : i * width + 128] for i in range(4)]
    assert len({tuple(picture.flatten().tolist()[:5000:7]) for picture in pictures}) == 4


def test_the_closed_form_edit_has_the_same_outputs(demo: tuple[Any, Any, Any], pairs: Any) -> None:
    edit = {"recipe": "UCE", "preview_every": 0}
    result = node_result(UNLEARN, **{**inputs(demo, pairs), **edit, "method": "UCE (closed form)"})
    model, lora = result[3], result[4]
    assert all(key.endswith(".diff") for key in lora)
    original, changed = (prediction(m, demo[1]) for m in (demo[0], model))
    assert not torch.allclose(original, changed, atol=1e-3)


def test_without_a_vae_it_trains_and_the_pictures_are_left_out(
    demo: tuple[Any, Any, Any], pairs: Any
) -> None:
    given, clip, _ = demo
    model = node_result(FROM, model=given, clip=clip, image_size=64)[0]
    result = node_result(UNLEARN, **{**inputs(demo, pairs), "model": model, "preview_every": 1})
    assert len(result[0].reports) == QUICK["steps"]
    assert isinstance(result[2], ExecutionBlocker)
    assert isinstance(result[5], ExecutionBlocker)
    assert not torch.equal(prediction(result[3], clip), prediction(given, clip))
    with pytest.raises(ValueError, match="has no VAE.*link"):
        node_result("UnlearnEvaluateAlignment", unlearned=result[0])


def test_a_model_of_load_model_has_no_outputs_for_comfyui(pairs: Any) -> None:
    model = node_result("UnlearnLoadModel", model="EmojiCanvas (demo)")[0]
    result = node_result(UNLEARN, model=model, prompts=pairs, **QUICK)
    for blocked in result[3:]:
        assert isinstance(blocked, ExecutionBlocker)
        assert "From ComfyUI" in blocked.message


def test_two_runs_keep_no_more_memory_than_one(demo: tuple[Any, Any, Any], pairs: Any) -> None:
    import gc

    def tensors() -> int:
        gc.collect()
        return sum(isinstance(thing, torch.Tensor) for thing in gc.get_objects())

    counts = []
    for seed in (1, 2, 3, 4):
        node_result(UNLEARN, **inputs(demo, pairs, seed=seed))
        counts.append(tensors())
    assert counts[3] <= counts[1]
