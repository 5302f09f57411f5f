"""Fixtures of the node tests: ComfyUI's own modules, the pack, and a user's folders."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
import torch

from ..core.tiny_models import write_class_conditional, write_stable_diffusion
from .pack import node_result, pack_module

# isort: split
# `pack` makes ComfyUI's own modules importable.
import comfy.model_management
import folder_paths
from server import PromptServer

TEMPLATES = "a {object} in {concept} style\n{concept} style {object}"
DIMENSIONS = "object: cat, dog, house, tree"
QUICK = {"steps": 3, "batch_size": 2, "preview_every": 0, "generation_steps": 2}

torch.set_num_threads(1)  # threads do not speed up such small tensors


@dataclass
class FakeServer:
    """Records the events that a node sends to the page."""

    client_id: str | None = "page"
    sent: list[tuple[str, dict[str, Any]]] = field(default_factory=list)
    receivers: list[str | None] = field(default_factory=list)  # of each; None is everybody

    def send_sync(self, event: str, data: dict[str, Any], sid: str | None = None) -> None:
        self.sent.append((event, data))
        self.receivers.append(sid)

    def queue_updated(self) -> None:
        """Called by ComfyUI's queue; no effect here."""

    @property
    def steps(self) -> list[dict[str, Any]]:
        return [data for event, data in self.sent if event == "unlearn.step"]


@pytest.fixture(scope="session")
def tiny_models(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A models/diffusers folder with two tiny models; read-only."""
    folder = tmp_path_factory.mktemp("diffusers")
    write_stable_diffusion(folder / "tiny-sd")
    write_class_conditional(folder / "tiny-class")
    return folder


@pytest.fixture(autouse=True)
def diffusers(tiny_models: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """ComfyUI's folders for one test; models are saved to the first, which is returned."""
    own = tmp_path / "diffusers"
    own.mkdir()
    places = {"diffusers": ([str(own), str(tiny_models)], {"folder"})}
    for kind in ("checkpoints", "loras", "vae"):
        (tmp_path / kind).mkdir()
        places[kind] = ([str(tmp_path / kind)], {".safetensors", ".ckpt"})
    monkeypatch.setattr(folder_paths, "folder_names_and_paths", places)
    # Cached lists contain the folders of the previous test, which no longer exist.
    monkeypatch.setattr(folder_paths, "filename_list_cache", {})
    monkeypatch.setattr(folder_paths, "user_directory", str(tmp_path / "user"))
    monkeypatch.setattr(folder_paths, "temp_directory", str(tmp_path / "temp"))
    monkeypatch.setattr(folder_paths, "output_directory", str(tmp_path / "output"))
    monkeypatch.setattr(folder_paths, "models_dir", str(tmp_path / "models"))
    return own


@pytest.fixture(autouse=True)
def page(monkeypatch: pytest.MonkeyPatch) -> FakeServer:
    server = FakeServer()
    pack_module("nodes.page.runs").RUNS.clear()
    monkeypatch.setattr(PromptServer, "instance", server, raising=False)
    comfy.model_management.interrupt_current_processing(False)
    return server


@pytest.fixture(scope="session")
def loaded(tiny_models: Path) -> Any:
    """The handle of the tiny Stable Diffusion, shared by all tests, as no node changes it."""
    return pack_module("unlearn_core.models.load").load_model(tiny_models / "tiny-sd")


@pytest.fixture(scope="session")
def pairs() -> Any:
    concept = node_result("UnlearnForgetConcept", replacements="noto, pixel")[0]
    return node_result(
        "UnlearnDiversifyPrompts",
        concept=concept,
        templates=TEMPLATES,
        dimensions=DIMENSIONS,
        train_count=4,
        test_count=2,
    )[0]


@pytest.fixture
def unlearned(loaded: Any, pairs: Any) -> Any:
    return node_result("UnlearnRestrictedGradient", model=loaded, prompts=pairs, **QUICK)[0]
