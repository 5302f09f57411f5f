"""The shipped workflows for real checkpoints, in a live ComfyUI, on a full-size Stable Diffusion
1.5 of random weights: all weights and LoRA, saved and handed to the stock nodes."""

from __future__ import annotations

import io
from collections.abc import Iterator
from typing import Any
from urllib.parse import urlencode
from urllib.request import urlopen

import numpy as np
import pytest
from live_server import PACK, Json, LiveServer, Run, running_server
from other_loader import comfy_side_at_work
from PIL import Image
from safetensors import safe_open
from workflow_files import as_prompt, read, with_widgets

ARTIST = PACK / "workflows" / "remove an artist's style (SD 1.5).json"
COMPARE = PACK / "workflows" / "compare before and after.json"
MODEL = "v1-5-pruned-emaonly-fp16.safetensors"
SAVED = "my-model-without-van-gogh"

# A few steps at 64 px, so that two CPU cores get through; mixed precision so that 24 GB do.
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
    """A server of its own, with the checkpoint where the workflow looks for it."""
    base = tmp_path_factory.mktemp("comfyui")
    artifacts = PACK / "test_artifacts"
    artifacts.mkdir(exist_ok=True)
    made = base / MODEL
    with comfy_side_at_work() as side:  # and gone again, for the server needs its memory
        side.make("sd1", made)
    log = artifacts / "checkpoints.log"
    with running_server(side.folder, base / "base", log, with_pack=True) as server:
        for kind in ("checkpoints", "loras"):
            (server.base / "models" / kind).mkdir()
        made.rename(server.base / "models" / "checkpoints" / MODEL)
        yield server
    for file in base.rglob("*.safetensors"):
        file.unlink()


def run(server: LiveServer, workflow: Json, overrides: dict[str, dict[str, Any]]) -> Run:
    info = server.object_info()
    done = server.run(as_prompt(with_widgets(workflow, overrides, info), info), timeout=900)
    assert done.status == "success", done.error
    server.forget_results()
    return done


def picture(server: LiveServer, done: Run) -> np.ndarray:
    """The one picture that a run showed, [H, W, 3] in 0..255."""
    ((image,),) = [output["images"] for output in done.outputs.values() if "images" in output]
    with urlopen(f"{server.url}/view?{urlencode(image)}") as answer:
        return np.asarray(Image.open(io.BytesIO(answer.read())).convert("RGB")).astype(int)


def halves(server: LiveServer, done: Run) -> tuple[np.ndarray, np.ndarray]:
    both = picture(server, done)
    return both[:, :64], both[:, -64:]


SMALL = {
    "EmptyLatentImage": {"width": 64, "height": 64},
    "KSampler": {"steps": 2},
}


def test_all_weights_as_a_checkpoint(server: LiveServer) -> None:
    done = run(server, read(ARTIST), SHORT)
    assert [event["step"] for event in done.of_kind("unlearn.step")] == [1, 2]
    assert done.of_kind("unlearn.preview")
    file = server.base / "models" / "checkpoints" / f"{SAVED}.safetensors"
    original = file.with_name(MODEL)
    assert abs(file.stat().st_size - original.stat().st_size) < 2**20
    with safe_open(file, "pt") as new, safe_open(original, "pt") as old:
        assert new.keys() == old.keys()
        said = new.metadata()
    assert said["modelspec.architecture"] == "stable-diffusion-v1"
    assert "Van Gogh" in said["unlearn.concept"]
    assert "UnlearnSaveCheckpoint" in said["prompt"]

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
        shown = run(
            server,
            with_lora(read(COMPARE)),
            {
                **SMALL,
                "CheckpointLoaderSimple": {"ckpt_name": MODEL},
                "LoraLoader": {"strength_model": strength},
            },
        )
        before, after = halves(server, shown)
        differences.append(np.abs(before - after).max())
    assert differences[0] == 0
    assert differences[1] > 0


def with_lora(workflow: Json) -> Json:
    """The comparison as its note says: the LoRA switched on and linked to the lower sampler."""
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
