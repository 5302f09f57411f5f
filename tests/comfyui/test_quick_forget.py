"""The template *quick forget* in the live server, with the demo model in the loader's place."""

from __future__ import annotations

import io
from typing import Any
from urllib.parse import urlencode
from urllib.request import urlopen

import numpy as np
import pytest
import torch
from live_server import PACK, Json, LiveServer
from PIL import Image
from torch import Tensor
from workflow_files import as_prompt, node_of_type, read, with_widgets

from unlearn_core.judging.judge import ConvJudge

TEMPLATE = PACK / "workflows" / "quick forget.json"
JUDGE = PACK / "demo" / "models" / "emoji-canvas" / "evaluation"
EDGE, GAP = 64, 8  # px; of a picture, and of the white strip between two
INK = {"concept": "ink", "replacements": "noto, twemoji, fluent, pixel"}
TEXTS = {
    "Prompt": "a cat in ink style on a pink background",
    "Nothing to avoid": "",
    "Negative prompt": "ink style",
}


def prompt(server: LiveServer, **quick_forget: Any) -> Json:
    info, workflow = server.object_info(), read(TEMPLATE)
    loader = node_of_type(workflow, "CheckpointLoaderSimple")
    kind = "UnlearnDemoModel"
    properties = {"Node name for S&R": kind}
    loader |= {"type": kind, "widgets_values": ["EmojiCanvas"], "properties": properties}
    widgets = {
        "EmptyLatentImage": {"width": 128, "height": 128},
        "KSampler": {"steps": 12, "cfg": 4.0, "sampler_name": "euler"},
        "UnlearnQuickForget": {**INK, **quick_forget},
    }
    workflow = with_widgets(workflow, widgets, info)
    for node in workflow["nodes"]:
        if node["type"] == "CLIPTextEncode":
            node["widgets_values"] = [TEXTS[node["title"]]]
    return as_prompt(workflow, info)


def pictures(server: LiveServer, **quick_forget: Any) -> Tensor:
    """Before, with a negative prompt, and after, [3, 3, H, W] in 0..1."""
    run = server.run(prompt(server, **quick_forget))
    assert run.status == "success", run.error
    (output,) = (output for output in run.outputs.values() if "images" in output)
    with urlopen(f"{server.url}/view?{urlencode(output['images'][0])}", timeout=60) as answer:
        picture = Image.open(io.BytesIO(answer.read())).convert("RGB")
    strip = torch.from_numpy(np.asarray(picture, np.float32) / 255).movedim(-1, 0)
    assert strip.shape == (3, EDGE, 3 * EDGE + 2 * GAP)
    return torch.stack([strip[:, :, x : x + EDGE] for x in (0, EDGE + GAP, 2 * (EDGE + GAP))])


def test_the_template_shows_the_difference(server: LiveServer) -> None:
    values = ConvJudge.load(JUDGE).classify(pictures(server))
    before, _, after = values["style"]
    assert before == "ink"
    assert after in ("noto", "twemoji", "fluent", "pixel")
    assert (values["object"][2], values["background"][2]) == ("cat", "pink")


def test_strength_0_draws_the_same_picture(server: LiveServer) -> None:
    before, _, after = pictures(server, strength=0.0)
    assert torch.equal(before, after)


def test_it_says_what_it_did(server: LiveServer) -> None:
    run = server.run(prompt(server, strength=0.5))
    (text,) = (output["text"] for output in run.outputs.values() if "text" in output)
    assert text == ["ink now draws as noto, twemoji, fluent, pixel; 60 prompt pairs; strength 0.5"]


def test_a_bad_word_is_refused_before_the_run(server: LiveServer) -> None:
    with pytest.raises(ValueError, match="concept must name what to forget"):
        server.run(prompt(server, concept=" "))
