"""From any loader to a picture in one run: the template *forget a style in any model*, with the
demo model in place of the checkpoint."""

from __future__ import annotations

import copy
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from live_server import PACK, Json, LiveServer, Run
from test_demo_model import FOLDERS, fetched
from torch import Tensor
from workflow_files import as_prompt, read, with_widgets

from demo.jobs import STYLE_TEMPLATES
from demo.world import BACKGROUNDS, OBJECTS, STYLES
from unlearn_core.judging.judge import ConvJudge

TEMPLATE = PACK / "workflows" / "forget a style in any model.json"
PROMPT = "a cat in ink style on a pink background"
OVERRIDES: dict[str, dict[str, Any]] = {
    "UnlearnFromComfyUI": {"image_size": 64},
    "UnlearnForgetConcept": {
        "concept": "ink",
        "synonyms": "",
        "replacements": ", ".join(style for style in STYLES if style != "ink"),
    },
    "UnlearnDiversifyPrompts": {
        "templates": "\n".join(STYLE_TEMPLATES),
        "dimensions": f"object: {', '.join(OBJECTS)}\nbackground: {', '.join(BACKGROUNDS)}",
        "train_count": 24,
        "test_count": 2,
        "test_share": 0.1,
    },
    "UnlearnRestrictedGradient": {
        "steps": 30, "learning_rate": 3e-3, "batch_size": 8, "preview_every": 0,
        "generation_steps": 6, "guidance_scale": 4.0,
    },
    "EmptyLatentImage": {"width": 128, "height": 128},
    "KSampler": {"steps": 16, "cfg": 4.0, "seed": 3},
    "UnlearnSaveCheckpoint": {"name": "emoji-without-ink", "overwrite": True},
}  # fmt: skip


def graph(server: LiveServer) -> Json:
    """The template as a prompt, with the demo model, the demo's words, and both pictures shown
    separately."""
    info = server.object_info()
    workflow = read(TEMPLATE)
    prompt = as_prompt(with_widgets(workflow, OVERRIDES, info), info)
    for node in prompt.values():
        if node["class_type"] == "CheckpointLoaderSimple":
            node["class_type"], node["inputs"] = "UnlearnDemoModel", {"model": "EmojiCanvas"}
        if node["class_type"] == "CLIPTextEncode" and node["inputs"]["text"]:
            node["inputs"]["text"] = PROMPT
    stitch = one(prompt, "ImageStitch")["inputs"]
    for name, source in (("before", stitch["image1"]), ("after", stitch["image2"])):
        prompt[name] = {"class_type": "PreviewImage", "inputs": {"images": source}}
    return prompt


def one(prompt: Json, kind: str) -> Json:
    (node,) = [node for node in prompt.values() if node["class_type"] == kind]
    return node


def done(server: LiveServer, prompt: Json) -> Run:
    run = server.run(prompt, timeout=600)
    assert run.status == "success", run.error
    return run


def styles(pictures: Tensor) -> list[str | None]:
    judge = ConvJudge.load(FOLDERS["EmojiCanvas"] / "evaluation")
    return judge.classify(F.interpolate(pictures, (64, 64), mode="area"))["style"]


@pytest.fixture(scope="module")
def first(server: LiveServer) -> tuple[Json, Run]:
    prompt = graph(server)
    return prompt, done(server, prompt)


def test_the_ksampler_draws_without_the_style(server: LiveServer, first: tuple[Json, Run]) -> None:
    _, run = first
    before, after = (fetched(server, run.outputs[name]) for name in ("before", "after"))
    assert styles(before) == ["ink"]
    assert styles(after) != ["ink"]
    assert len(run.of_kind("unlearn.step")) == 30


def test_the_saved_lora_draws_the_same(server: LiveServer, first: tuple[Json, Run]) -> None:
    """With ComfyUI's own LoRA loader, on the model that was given."""
    prompt, run = first
    prompt = copy.deepcopy(prompt)
    sampler = next(
        node
        for node in prompt.values()
        if node["class_type"] == "KSampler"
        and prompt[node["inputs"]["model"][0]]["class_type"] == "UnlearnRestrictedGradient"
    )
    (loader,) = [key for key, node in prompt.items() if node["class_type"] == "UnlearnDemoModel"]
    prompt["lora"] = {
        "class_type": "LoraLoaderModelOnly",
        "inputs": {
            "model": [loader, 0],
            "lora_name": "emoji-without-ink.safetensors",
            "strength_model": 1.0,
        },
    }
    sampler["inputs"]["model"] = ["lora", 0]
    del prompt["before"]
    unused = ("UnlearnRestrictedGradient", "UnlearnSaveCheckpoint", "PreviewImage", "ImageStitch")
    keep = {key for key, node in prompt.items() if node["class_type"] not in unused}
    prompt = {key: node for key, node in prompt.items() if key in {*keep, "after"}}
    again = done(server, prompt)
    torch.testing.assert_close(
        fetched(server, again.outputs["after"]), fetched(server, run.outputs["after"]),
        atol=2 / 255, rtol=0,
    )  # fmt: skip


def test_only_the_strength_is_changed(server: LiveServer, first: tuple[Json, Run]) -> None:
    """Nothing is trained again, and strength 0 is the model that was given."""
    prompt, run = first
    prompt = copy.deepcopy(prompt)
    one(prompt, "UnlearnRestrictedGradient")["inputs"]["strength"] = 0.0
    again = done(server, prompt)
    assert again.of_kind("unlearn.step") == []
    before, after = (fetched(server, again.outputs[name]) for name in ("before", "after"))
    assert torch.equal(before, after)
    assert torch.equal(before, fetched(server, run.outputs["before"]))
