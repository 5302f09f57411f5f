"""Stock nodes draw with the demo models in the live server."""

from __future__ import annotations

import io
from urllib.parse import urlencode
from urllib.request import urlopen

import numpy as np
import pytest
import torch
from live_server import PACK, Json, LiveServer
from PIL import Image
from torch import Tensor

from unlearn_core.judging.judge import ConvJudge

MODELS = PACK / "demo" / "models"
FOLDERS = {"EmojiCanvas": MODELS / "emoji-canvas", "EmojiCanvas-Flow": MODELS / "emoji-canvas-flow"}
SIZES = {"EmojiCanvas": 64, "EmojiCanvas-Flow": 128}  # px
PROMPT = "a cat in ink style on a pink background"


def graph(model: str) -> Json:
    """An API prompt of stock nodes, with a round trip through VAE Encode."""

    def node(kind: str, **inputs: object) -> Json:
        return {"class_type": kind, "inputs": inputs}

    return {
        "demo": node("UnlearnDemoModel", model=model),
        "positive": node("CLIPTextEncode", clip=["demo", 1], text=PROMPT),
        "negative": node("CLIPTextEncode", clip=["demo", 1], text=""),
        "empty": node("EmptyLatentImage", width=128, height=128, batch_size=2),
        "latents": node(
            "KSampler", model=["demo", 0], positive=["positive", 0], negative=["negative", 0],
            latent_image=["empty", 0], seed=3, steps=20, cfg=4.0, sampler_name="euler",
            scheduler="normal", denoise=1.0,
        ),
        "pictures": node("VAEDecode", samples=["latents", 0], vae=["demo", 2]),
        "shown": node("PreviewImage", images=["pictures", 0]),
        "again": node("VAEEncode", pixels=["pictures", 0], vae=["demo", 2]),
        "decoded again": node("VAEDecode", samples=["again", 0], vae=["demo", 2]),
        "shown again": node("PreviewImage", images=["decoded again", 0]),
    }  # fmt: skip


def fetched(server: LiveServer, output: Json) -> Tensor:
    """The pictures shown by a node, [N, 3, H, W] in 0..1."""
    pictures = []
    for place in output["images"]:
        with urlopen(f"{server.url}/view?{urlencode(place)}", timeout=60) as answer:
            picture = Image.open(io.BytesIO(answer.read())).convert("RGB")
        pictures.append(torch.from_numpy(np.asarray(picture, np.float32) / 255))
    return torch.stack(pictures).movedim(-1, 1)


def test_the_bundled_models_are_listed(server: LiveServer) -> None:
    schema = server.get("/object_info/UnlearnDemoModel")["UnlearnDemoModel"]
    assert schema["input"]["required"]["model"][1]["options"] == list(FOLDERS)


@pytest.mark.parametrize("model", FOLDERS)
def test_ksampler_draws_with_it(server: LiveServer, model: str) -> None:
    run = server.run(graph(model))
    assert run.status == "success", run.error
    judge = ConvJudge.load(FOLDERS["EmojiCanvas"] / "evaluation")
    for node in ("shown", "shown again"):
        pictures = fetched(server, run.outputs[node])
        assert pictures.shape == (2, 3, SIZES[model], SIZES[model])
        judgements = judge.classify(pictures)
        expected = {"style": "ink", "object": "cat", "background": "pink"}
        assert judgements == {name: [value] * 2 for name, value in expected.items()}


def test_it_draws_again_after_unloading(server: LiveServer) -> None:
    assert server.run(graph("EmojiCanvas")).status == "success"
    server.unload_models()
    prompt = graph("EmojiCanvas")
    prompt["latents"]["inputs"]["seed"] = 4  # otherwise nothing is left to do
    run = server.run(prompt)
    assert run.status == "success", run.error
    (cached,) = run.of_kind("execution_cached")
    assert "demo" in cached["nodes"]
