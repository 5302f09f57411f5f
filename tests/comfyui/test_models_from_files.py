"""From model files to pictures in the live server, for four architectures of random weights.

Stable Diffusion 3 is loaded by stock nodes alone. ComfyUI recognises the other three only in their
published width, so nodes of the pack `tiny_models` load them. All VAEs come from the stock node.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import pytest
import torch
from live_server import Event, Json, LiveServer, Run
from safetensors.torch import load_file
from test_demo_model import fetched
from torch import Tensor

FP8 = "flux in fp8"
MODELS = ["flux", FP8, "sd3", "z-image", "qwen-image"]
VAES = {
    "flux": "taef1",
    "sd3": "taesd3",
    "z-image": "taef1",
    "qwen-image": "qwen-image.safetensors",
}
CLIPS = {
    "flux": ("flux", "flux clip_l.safetensors, flux t5xxl.safetensors"),
    "z-image": ("lumina2", "z-image qwen3.safetensors"),
    "qwen-image": ("qwen_image", "qwen-image qwen25.safetensors"),
}
STEPS = 2
GIVEN, TRAINED, LORA = ("loader", 0), ("unlearn", 3), ("unlearn", 4)
Link = tuple[str, int]


@dataclass(frozen=True)
class Graphs:
    """Prompts with one of the models, and their outputs.

    Attributes:
        name: of the files.
        weight_dtype: as in Load Diffusion Model.
    """

    server: LiveServer
    info: Json
    name: str
    weight_dtype: str

    def node(self, kind: str, **inputs: Any) -> Json:
        """A node with the default values of all other inputs."""
        values: Json = {}
        for key, (values_or_type, *options) in self.info[kind]["input"]["required"].items():
            if isinstance(values_or_type, list) and values_or_type:
                values[key] = values_or_type[0]
            elif options and "default" in options[0]:
                values[key] = options[0]["default"]
        links = {key: list(value) for key, value in inputs.items() if isinstance(value, tuple)}
        return {"class_type": kind, "inputs": {**values, **inputs, **links}}

    def loaders(self) -> Json:
        if self.name == "sd3":
            model = self.node("UNETLoader", unet_name="sd3.safetensors")
            clip = self.node("CLIPLoader", clip_name="sd3 clip_l.safetensors", type="sd3")
        else:
            kind, files = CLIPS[self.name]
            model = self.node(
                "TinyUNETLoader",
                unet_name=f"{self.name}.safetensors",
                weight_dtype=self.weight_dtype,
            )
            clip = self.node("TinyCLIPLoader", clip_names=files, type=kind)
        vae = self.node("VAELoader", vae_name=VAES[self.name])
        return {"loader": model, "clip": clip, "vae": vae}

    def drawing(self, label: str, model: Link) -> Json:
        """A picture by stock nodes; the prompts are shared."""
        return {
            "positive": self.node("CLIPTextEncode", clip=("clip", 0), text="a house, ink style"),
            "negative": self.node("CLIPTextEncode", clip=("clip", 0), text=""),
            "empty": self.node("EmptySD3LatentImage", width=64, height=64),
            f"{label} drawn": self.node(
                "KSampler", model=model, positive=("positive", 0), negative=("negative", 0),
                latent_image=("empty", 0), seed=5, steps=2, cfg=2.0, sampler_name="euler",
                scheduler="simple",
            ),
            f"{label} latents": self.node("SaveLatent", samples=(f"{label} drawn", 0)),
            f"{label} decoded": self.node(
                "VAEDecode", samples=(f"{label} drawn", 0), vae=("vae", 0)
            ),
            f"{label} picture": self.node("PreviewImage", images=(f"{label} decoded", 0)),
        }  # fmt: skip

    def unlearning(self, model: Link = GIVEN, **inputs: Any) -> Json:
        few = {"train_count": 2, "test_count": 1}
        short: Json = {
            "steps": STEPS, "batch_size": 1, "preview_every": 0, "generation_steps": 1,
            "guidance_scale": 1.0, "learning_rate": 0.02, "scope": "lora",
        }  # fmt: skip
        return {
            "opened": self.node(
                "UnlearnFromComfyUI", model=model, clip=("clip", 0), vae=("vae", 0), image_size=64
            ),
            "concept": self.node("UnlearnForgetConcept"),
            "prompts": self.node("UnlearnDiversifyPrompts", concept=("concept", 0), **few),
            "unlearn": self.node(
                "UnlearnRestrictedGradient",
                model=("opened", 0),
                prompts=("prompts", 0),
                **{**short, **inputs},
            ),
        }

    def file(self, name: str, model: Link = GIVEN) -> Json:
        """A LoRA file after a model."""
        loader = self.node("LoraLoaderModelOnly", model=model, lora_name=name, strength_model=1.0)
        return {name: loader}

    def run(self, *parts: Json, on_event: Callable[[Event], None] | None = None) -> Run:
        prompt = self.loaders()
        for part in parts:
            prompt.update(part)
        return self.server.run(prompt, timeout=300, on_event=on_event)

    def done(self, *parts: Json) -> Run:
        run = self.run(*parts)
        assert run.status == "success", run.error
        return run

    def latents(self, run: Run, label: str) -> Tensor:
        """The exact latents; a picture is rounded to eight bits."""
        (place,) = run.outputs[f"{label} latents"]["latents"]
        file = self.server.base / "output" / place["subfolder"] / place["filename"]
        return load_file(file)["latent_tensor"]

    def state(self) -> Json:
        """The state of the process and of the network that the last run used."""
        run = self.done({"state": self.node("TinyState", model=GIVEN)})
        (cached,) = run.of_kind("execution_cached")
        assert "loader" in cached["nodes"]
        return json.loads(run.outputs["state"]["text"][0])

    def as_lora(self, name: str) -> str:
        """Move the file of Save LoRA Weights to where LoraLoader reads it."""
        (file,) = (self.server.base / "output").rglob(f"{name}_*.safetensors")
        target = self.server.base / "models" / "loras" / f"{name}.safetensors"
        target.parent.mkdir(exist_ok=True)
        shutil.move(file, target)
        return target.name


def graphs_of(server: LiveServer, model: str) -> Graphs:
    """Write the files of one of ``MODELS``."""
    name = "flux" if model == FP8 else model
    dtype = "fp8_e4m3fn" if model == FP8 else "default"
    graphs = Graphs(server, server.object_info(), name, dtype)
    run = server.run({"files": graphs.node("TinyWriteFiles", name=name)})
    assert run.status == "success", run.error
    return graphs


@pytest.fixture(scope="module", params=MODELS)
def graphs(request: pytest.FixtureRequest, server: LiveServer) -> Graphs:
    return graphs_of(server, request.param)


@dataclass(frozen=True)
class First:
    """The picture of the given model, and then a run that also draws.

    Attributes:
        before, after: latents.
        stock_lora, own_lora: files of Save LoRA Weights and of Save Checkpoint.
    """

    before: Tensor
    run: Run
    after: Tensor
    stock_lora: str
    own_lora: str


@pytest.fixture(scope="module")
def first(graphs: Graphs) -> First:
    return first_run(graphs)


def first_run(graphs: Graphs) -> First:
    before = graphs.latents(graphs.done(graphs.drawing("given", GIVEN)), "given")
    name = f"{graphs.name} {graphs.weight_dtype}"
    run = graphs.done(
        graphs.unlearning(),
        graphs.drawing("trained", TRAINED),
        {
            "stock lora": graphs.node("SaveLoRA", lora=LORA, prefix=f"loras/{name}"),
            "own lora": graphs.node(
                "UnlearnSaveCheckpoint", unlearned=("unlearn", 0), name=f"{name} own",
                save_as="LoRA", overwrite=True,
            ),
        },
    )  # fmt: skip
    after = graphs.latents(run, "trained")
    return First(before, run, after, graphs.as_lora(name), f"{name} own.safetensors")


def test_the_chain(graphs: Graphs, first: First) -> None:
    assert [event["step"] for event in first.run.of_kind("unlearn.step")] == [1, 2]
    picture = fetched(graphs.server, first.run.outputs["trained picture"])
    assert picture.shape == (1, 3, 64, 64)
    assert picture.std() > 0.01
    change = (first.after - first.before).abs().max()
    assert change > 0.01 * first.before.abs().max()


def test_the_given_model_is_unchanged(graphs: Graphs, first: First) -> None:
    """Its loader is not run again, and it draws again."""
    again = graphs.done(
        graphs.drawing("given", GIVEN),
        graphs.unlearning(strength=0.0),
        graphs.drawing("nothing", TRAINED),
    )
    (cached,) = again.of_kind("execution_cached")
    assert "loader" in cached["nodes"]
    assert "given drawn" not in cached["nodes"]
    assert torch.equal(graphs.latents(again, "given"), first.before)
    assert again.of_kind("unlearn.step") == [], "the strength alone is changed"
    assert torch.equal(graphs.latents(again, "nothing"), first.before)
    state = graphs.state()
    assert state["hooked"] == state["trainable"] == []
    assert not state["training"]


def test_the_lora_draws_the_same(graphs: Graphs, first: First) -> None:
    """Both files in ComfyUI's own loader."""
    run = graphs.done(
        graphs.file(first.stock_lora),
        graphs.drawing("stock", (first.stock_lora, 0)),
        graphs.file(first.own_lora),
        graphs.drawing("own", (first.own_lora, 0)),
    )
    assert torch.equal(graphs.latents(run, "stock"), first.after)
    change = (first.after - first.before).abs().max()
    # The factors have 16 bits if the MODEL's weights are not in fp32.
    rounding = 0.05 * change if graphs.weight_dtype != "default" else 0
    assert (graphs.latents(run, "own") - first.after).abs().max() <= rounding


@pytest.fixture(scope="module", params=[FP8, "qwen-image"])
def other(request: pytest.FixtureRequest, server: LiveServer) -> tuple[Graphs, First]:
    """Two of the models, in a module scope of their own."""
    graphs = graphs_of(server, request.param)
    return graphs, first_run(graphs)


def test_a_lora_before_it_stays(other: tuple[Graphs, First]) -> None:
    """On top of it, another LoRA is trained."""
    graphs, first = other
    with_lora, with_both = (first.stock_lora, 0), ("both", 0)
    run = graphs.done(
        graphs.file(first.stock_lora),
        graphs.drawing("with lora", with_lora),
        graphs.unlearning(with_lora, seed=1),
        graphs.drawing("trained", TRAINED),
        {"both": graphs.node("LoraModelLoader", model=with_lora, lora=LORA)},
        graphs.drawing("with both", with_both),
    )
    latents = {label: graphs.latents(run, label) for label in ("with lora", "trained", "with both")}
    assert torch.equal(latents["with lora"], first.after)
    assert torch.equal(latents["with both"], latents["trained"])
    change = (first.after - first.before).abs().max()
    assert (latents["trained"] - latents["with lora"]).abs().max() > 0.1 * change
    none = graphs.done(
        graphs.file(first.stock_lora),
        graphs.unlearning(with_lora, seed=1, strength=0.0),
        graphs.drawing("nothing", TRAINED),
    )
    assert torch.equal(graphs.latents(none, "nothing"), first.after)


def draws_as_before(graphs: Graphs, first: First) -> None:
    """Check that the last run left nothing behind: the given model draws as before, and a new run
    gives the same result."""
    state = graphs.state()
    assert state["hooked"] == state["trainable"] == []
    assert not state["training"]
    given = graphs.done(graphs.drawing("given", GIVEN))
    assert torch.equal(graphs.latents(given, "given"), first.before)
    again = graphs.done(graphs.unlearning(), graphs.drawing("trained", TRAINED))
    assert torch.equal(graphs.latents(again, "trained"), first.after)


def test_cancel(other: tuple[Graphs, First]) -> None:
    graphs, first = other

    def cancel(event: Event) -> None:
        if event.kind == "unlearn.step":
            graphs.server.interrupt()

    run = graphs.run(graphs.unlearning(steps=1000), on_event=cancel)
    assert run.status == "interrupted"
    assert 0 < len(run.of_kind("unlearn.step")) < 1000
    draws_as_before(graphs, first)


def test_out_of_memory(other: tuple[Graphs, First]) -> None:
    graphs, first = other
    failing = {"failing": graphs.node("TinyRunOutOfMemory", model=GIVEN)}
    run = graphs.run(failing, graphs.unlearning(("failing", 0), seed=2))
    assert run.status == "error"
    assert "OutOfMemoryError" in run.error
    draws_as_before(graphs, first)


def test_more_runs_need_no_more_memory(other: tuple[Graphs, First]) -> None:
    graphs, _ = other

    def bytes_after(seed: int) -> int:
        graphs.done(graphs.unlearning(seed=seed), graphs.drawing("trained", TRAINED))
        return graphs.state()["bytes"]

    assert bytes_after(4) < 1.01 * bytes_after(3)
