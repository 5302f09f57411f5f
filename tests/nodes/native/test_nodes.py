"""The nodes on a MODEL, CLIP and VAE of ComfyUI."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import comfy.model_management
import pytest
import torch

from ..conftest import QUICK, FakeServer
from ..pack import node_result, pack_module, run_node, shown_by
from .same_weights import as_comfyui, write_folder
from .test_hooks import untouched
from .test_training import bits, equal
from .tiny_networks import ARCHITECTURES, StandInClip, TinyVae, model

UNLEARN, FROM = "UnlearnRestrictedGradient", "UnlearnFromComfyUI"
Interrupted = comfy.model_management.InterruptProcessingException


@pytest.fixture(scope="module")
def loader(tmp_path_factory: pytest.TempPathFactory) -> tuple[Any, Any, Any]:
    """MODEL, CLIP and VAE."""
    return as_comfyui(write_folder(tmp_path_factory.mktemp("models") / "tiny-sd15"))


def linked(loader: tuple[Any, Any, Any], **widgets: Any) -> Any:
    given, clip, vae = loader
    return node_result(FROM, model=given, clip=clip, vae=vae, **{"image_size": 16, **widgets})[0]


def is_picture(image: torch.Tensor) -> bool:
    return bool(image.isfinite().all() and image.min() >= 0 and image.max() <= 1)


def test_from_the_loader_to_the_report(
    loader: tuple[Any, Any, Any], pairs: Any, page: FakeServer
) -> None:
    before = bits(loader[0])
    output = run_node(UNLEARN, model=linked(loader), prompts=pairs, **{**QUICK, "preview_every": 2})
    assert output.result is not None
    unlearned, chart, comparison, *_ = output.result
    assert is_picture(chart)
    assert is_picture(comparison)
    assert len(shown_by(output)["unlearn_run"][0]["previews"]) == 2
    assert [step["step"] for step in page.steps] == [1, 2, 3]
    _, grid, figures = node_result(
        "UnlearnEvaluateAlignment", unlearned=unlearned, pictures=2, generation_steps=2
    )
    assert is_picture(grid)
    assert "pictures of each kind" in figures
    assert equal(bits(loader[0]), before)


def test_a_kept_step_is_restored(loader: tuple[Any, Any, Any], pairs: Any) -> None:
    inputs = {"model": linked(loader), "prompts": pairs, **QUICK, "preview_every": 1}
    whole = node_result(UNLEARN, **inputs)[0]
    kept = node_result(UNLEARN, **inputs, keep_step=2)[0]
    assert len(kept.reports) == 2
    layers, others = kept.model.lora_layers(), whole.model.lora_layers()
    assert layers.keys() == others.keys()
    assert not all(torch.equal(layers[name].up, others[name].up) for name in layers)
    again = node_result(UNLEARN, **inputs)[0].model.lora_layers()
    assert all(torch.equal(again[name].up, others[name].up) for name in others)


@pytest.mark.parametrize("after", [1, 40])
def test_cancel_leaves_the_model_as_it_was(
    after: int, loader: tuple[Any, Any, Any], pairs: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Cancelled inside a layer, while pictures are drawn or while it trains."""
    handle, before = linked(loader), bits(loader[0])
    calls = []

    def cancelled() -> None:
        calls.append(1)
        if len(calls) > 1000 * after:
            raise Interrupted

    with monkeypatch.context() as patch:
        patch.setattr(
            comfy.model_management, "throw_exception_if_processing_interrupted", cancelled
        )
        with pytest.raises(Interrupted):
            run_node(UNLEARN, model=handle, prompts=pairs, **{**QUICK, "steps": 1000})
    assert untouched(handle)
    assert equal(bits(loader[0]), before)
    assert node_result(UNLEARN, model=handle, prompts=pairs, **QUICK)[0].reports


def test_the_probe_that_relearns_trains_on_top_of_the_change(
    loader: tuple[Any, Any, Any], pairs: Any
) -> None:
    unlearned = node_result(UNLEARN, model=linked(loader), prompts=pairs, **QUICK)[0]
    layers = {name: layer.up.clone() for name, layer in unlearned.model.lora_layers().items()}
    report = node_result(
        "UnlearnEvaluateAlignment", unlearned=unlearned, pictures=2, generation_steps=2,
        probes="all",
    )[0]  # fmt: skip
    assert "relearn" in " ".join(probe.name for probe in report.probes)
    (missing,) = (text for text in report.missing if "probe" in text)
    assert "learning a new word is not supported" in missing
    after = unlearned.model.lora_layers()
    assert all(torch.equal(layers[name], after[name].up) for name in layers)


def test_a_picture_is_noised_and_denoised(loader: tuple[Any, Any, Any], pairs: Any) -> None:
    curves, settings, drawing = (
        pack_module(f"unlearn_core.{name}")
        for name in ("judging.curves", "judging.settings", "dataset.settings")
    )
    handle = linked(loader)
    few = settings.ProbeSettings(pictures=2, generation=drawing.GenerationSettings(steps=4))
    attack = pack_module("unlearn_core.judging.image_to_image").ImageToImage
    target = curves.Target(handle, handle, pairs, few)
    with torch.inference_mode(False), torch.no_grad():
        attempts = list(attack("image to image", neutral=True, efforts=(10, 90)).attempts(target))
    little, much = (attempt.pictures.float() for attempt in attempts)
    own = target.attempt(handle, [pair.forget for pair in target.tests], 0, "").pictures.float()
    assert (little - own).abs().mean() < (much - own).abs().mean()


@pytest.mark.parametrize("name", ["flux", "qwen-image"])
def test_other_architectures(name: str, pairs: Any) -> None:
    tiny = ARCHITECTURES[name]
    given = model(name)
    vae = TinyVae(tiny.latent[0], given.model.latent_format.latent_dimensions)
    handle = node_result(FROM, model=given, clip=StandInClip(tiny), vae=vae, image_size=64)[0]
    unlearned, _, comparison, *_ = node_result(UNLEARN, model=handle, prompts=pairs, **QUICK)
    assert is_picture(comparison)
    assert unlearned.settings.scope == "lora, text path"


def test_scopes_of_whole_weights_are_refused(loader: tuple[Any, Any, Any], pairs: Any) -> None:
    with pytest.raises(ValueError, match=r"scope 'xattn' does not exist .* choose 'auto'"):
        run_node(UNLEARN, model=linked(loader), prompts=pairs, scope="xattn", **QUICK)


def test_a_saved_lora_gives_the_trained_model(
    loader: tuple[Any, Any, Any], pairs: Any, tmp_path: Path
) -> None:
    """SaveLoRA and LoraLoader: what ComfyUI's own sampler draws is what the handle draws."""
    import comfy.sd
    import comfy.utils
    from safetensors.torch import save_file

    given, clip, vae = loader
    handle = linked(loader)
    unlearned = node_result(UNLEARN, model=handle, prompts=pairs, **{**QUICK, "steps": 5})[0]
    file = tmp_path / "lora.safetensors"
    save_file(pack_module("nodes.native.lora_file").lora_state_dict(unlearned.model), file)
    with torch.inference_mode():
        lora = comfy.utils.load_torch_file(str(file), safe_load=True)
        patched, _ = comfy.sd.load_lora_for_models(given, clip, lora, 1.0, 1.0)
    again = linked((patched, clip, vae))
    prompts = ["a cat in ink style"]
    drawn = [
        one.sample(prompts, [1], steps=4, guidance_scale=3.0) for one in (unlearned.model, again)
    ]
    torch.testing.assert_close(*drawn, rtol=1e-3, atol=1e-3)
