"""The bundled workflows for real checkpoints, in a live ComfyUI, on a full-size Stable Diffusion
1.5 of random weights: a checkpoint and a LoRA are saved and loaded by the stock nodes."""

from __future__ import annotations

import io
from collections.abc import Iterator
from typing import Any
from urllib.parse import urlencode
from urllib.request import urlopen

import numpy as np
import pytest
from live_server import PACK, Json, LiveServer, Run, running_server
from other_loader import running_comfy_side
from PIL import Image
from safetensors import safe_open
from workflow_files import as_prompt, read, with_widgets

ARTIST = PACK / "workflows" / "remove an artist's style (SD 1.5).json"
ANY = PACK / "workflows" / "forget a style in any model.json"
COMPARE = PACK / "workflows" / "compare before and after.json"
MODEL = "v1-5-pruned-emaonly-fp16.safetensors"
SAVED = "my-model-without-van-gogh"

# A few steps at 64 px for two CPU cores, and mixed precision for 24 GB of memory.
SHORT: dict[str, dict[str, Any]] = {
    "UnlearnLoadModel": {"image_size": 64, "precision": "mixed"},
    "UnlearnDiversifyPrompts": {"train_count": 2, "test_count": 1},
    "UnlearnRestrictedGradient": {
        "steps": 2, "batch_size": 1, "preview_every": 2, "generation_steps": 1,
        "guidance_scale": 1.0, "learning_rate": 1e-3,
    },
    "UnlearnEvaluateAlignment": {"pictures": 1, "generation_steps": 1, "guidance_scale": 1.0},
}  # fmt: skip


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[LiveServer]:
    """A separate server that has the workflow's checkpoint."""
    base = tmp_path_factory.mktemp("comfyui")
    artifacts = PACK / "test_artifacts"
    artifacts.mkdir(exist_ok=True)
    checkpoint = base / MODEL
    with running_comfy_side() as side:  # ended before the server, which needs the memory
        side.make("sd1", checkpoint)
    log = artifacts / "checkpoints.log"
    with running_server(side.folder, base / "base", log, with_pack=True) as server:
        for kind in ("checkpoints", "loras"):
            (server.base / "models" / kind).mkdir()
        checkpoint.rename(server.base / "models" / "checkpoints" / MODEL)
        yield server
    for file in base.rglob("*.safetensors"):
        file.unlink()


def run(server: LiveServer, workflow: Json, overrides: dict[str, dict[str, Any]]) -> Run:
    info = server.object_info()
    result = server.run(as_prompt(with_widgets(workflow, overrides, info), info), timeout=900)
    assert result.status == "success", result.error
    server.forget_results()
    return result


def picture(server: LiveServer, result: Run) -> np.ndarray:
    """The only picture among a run's outputs, [H, W, 3] in 0..255."""
    ((image,),) = [output["images"] for output in result.outputs.values() if "images" in output]
    with urlopen(f"{server.url}/view?{urlencode(image)}") as answer:
        return np.asarray(Image.open(io.BytesIO(answer.read())).convert("RGB")).astype(int)


def halves(server: LiveServer, result: Run) -> tuple[np.ndarray, np.ndarray]:
    both = picture(server, result)
    return both[:, :64], both[:, -64:]


SMALL = {
    "EmptyLatentImage": {"width": 64, "height": 64},
    "KSampler": {"steps": 2},
}


def test_all_weights_as_a_checkpoint(server: LiveServer) -> None:
    result = run(server, read(ARTIST), SHORT)
    assert [event["step"] for event in result.of_kind("unlearn.step")] == [1, 2]
    assert result.of_kind("unlearn.preview")
    file = server.base / "models" / "checkpoints" / f"{SAVED}.safetensors"
    original = file.with_name(MODEL)
    assert abs(file.stat().st_size - original.stat().st_size) < 2**20
    with safe_open(file, "pt") as new, safe_open(original, "pt") as old:
        assert new.keys() == old.keys()
        metadata = new.metadata()
    assert metadata["modelspec.architecture"] == "stable-diffusion-v1"
    assert "Van Gogh" in metadata["unlearn.concept"]
    assert "UnlearnSaveCheckpoint" in metadata["prompt"]

    before, after = halves(server, run(server, read(COMPARE), SMALL))
    assert before.std() > 5
    assert np.abs(before - after).mean() > 1


def test_a_lora_at_strengths(server: LiveServer) -> None:
    overrides = {
        **SHORT,
        "UnlearnRestrictedGradient": {**SHORT["UnlearnRestrictedGradient"], "scope": "lora"},
        "UnlearnSaveCheckpoint": {"save_as": "LoRA"},
    }
    run(server, read(ARTIST), overrides)
    file = server.base / "models" / "loras" / f"{SAVED}.safetensors"
    assert file.stat().st_size < 2**26
    with safe_open(file, "pt") as saved:
        assert saved.metadata()["ss_network_dim"] == "16"

    differences = []
    for strength in (0.0, 1.0):
        result = run(
            server,
            with_lora(read(COMPARE)),
            {
                **SMALL,
                "CheckpointLoaderSimple": {"ckpt_name": MODEL},
                "LoraLoader": {"strength_model": strength},
            },
        )
        before, after = halves(server, result)
        differences.append(np.abs(before - after).max())
    assert differences[0] == 0
    assert differences[1] > 0


def test_from_the_loader_to_a_picture_in_one_run(server: LiveServer) -> None:
    """The template for any model: the MODEL of the unlearn node draws, and the saved LoRA draws the
    same with ComfyUI's own loader."""
    both = ("UnlearnDiversifyPrompts", "UnlearnRestrictedGradient")
    overrides = {
        **{kind: SHORT[kind] for kind in both},
        **SMALL,
        "UnlearnFromComfyUI": {"image_size": 64},
        "UnlearnSaveCheckpoint": {"name": "any-without-van-gogh", "save_as": "LoRA"},
        "CheckpointLoaderSimple": {"ckpt_name": MODEL},
    }
    workflow = read(ANY)
    strengths = next(n for n in workflow["nodes"] if n.get("title", "").startswith("Strength"))
    workflow["nodes"].remove(strengths)
    link = strengths["inputs"][0]["link"]
    workflow["links"] = [one for one in workflow["links"] if one[0] != link]
    info = server.object_info()
    prompt = as_prompt(with_widgets(workflow, overrides, info), info)
    result = server.run(prompt, timeout=900)
    assert result.status == "success", result.error
    before, after = halves(server, result)
    assert before.std() > 5
    assert np.abs(before - after).max() > 0

    node_ids = {
        node["class_type"]: key
        for key, node in prompt.items()
        if node["class_type"] in ("CheckpointLoaderSimple", "UnlearnRestrictedGradient")
    }
    from_node = [node_ids["UnlearnRestrictedGradient"], 3]
    (sampler,) = [node for node in prompt.values() if node["inputs"].get("model") == from_node]
    prompt["lora"] = {
        "class_type": "LoraLoaderModelOnly",
        "inputs": {
            "model": [node_ids["CheckpointLoaderSimple"], 0],
            "lora_name": "any-without-van-gogh.safetensors",
            "strength_model": 1.0,
        },
    }
    sampler["inputs"]["model"] = ["lora", 0]
    prompt = {k: n for k, n in prompt.items() if not n["class_type"].startswith("Unlearn")}
    again = server.run(prompt, timeout=900)
    assert again.status == "success", again.error
    same, loaded = halves(server, again)
    assert np.array_equal(same, before)
    assert np.abs(loaded - after).max() <= 2
    server.forget_results()


def with_lora(workflow: Json) -> Json:
    """The comparison with the changes from its note: the LoRA is enabled and linked to the lower
    sampler."""
    nodes = {node["id"]: node for node in workflow["nodes"]}
    (lora,) = [node for node in nodes.values() if node["type"] == "LoraLoader"]
    lora["mode"] = 0
    after = next(n for n in nodes.values() if n["type"] == "KSampler" and n["title"] == "After")
    for link in workflow["links"]:
        if link[0] == after["inputs"][0]["link"]:
            nodes[link[1]]["outputs"][link[2]]["links"] = None
            link[1], link[2] = lora["id"], 0
            lora["outputs"][0]["links"] = [link[0]]
    return workflow
