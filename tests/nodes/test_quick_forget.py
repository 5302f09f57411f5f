"""Quick Forget: the concept disappears, the rest stays, and the linked MODEL is untouched."""

from __future__ import annotations

import math
from functools import partial
from typing import Any

import comfy.model_management
import comfy.sample
import pytest
import torch
from torch import Tensor

from unlearn_core.judging.judge import ConvJudge

from .native.conftest import opened
from .native.test_training import bits, equal
from .native.tiny_networks import ARCHITECTURES, StandInClip, model
from .pack import defaults, node_result, pack_module, refusals, run_node, shown_by

QUICK_FORGET = "UnlearnQuickForget"
INK = {"concept": "ink", "replacements": "noto, twemoji, fluent, pixel"}
PICTURES = (  # style, object and background, all of which the model draws right with seed 1
    ("ink", "cat", "pink"),
    ("ink", "rocket", "green"),
    ("fluent", "dog", "pink"),
    ("twemoji", "cat", "green"),
    ("noto", "house", "blue"),
    ("pixel", "cat", "white"),
)
Interrupted = comfy.model_management.InterruptProcessingException


@pytest.fixture(scope="module")
def demo() -> Any:
    return node_result("UnlearnDemoModel")


def forget(demo: Any, **inputs: Any) -> Any:
    given, clip, _ = demo
    return node_result(QUICK_FORGET, **{"model": given, "clip": clip, **INK, **inputs})[0]


@torch.inference_mode()
def drawn(demo: Any, given: Any, steps: int = 12) -> Tensor:
    """A picture of each of ``PICTURES`` by ComfyUI's sampler, [N, 3, 64, 64] in 0..1."""
    _, clip, vae = demo
    prompts = [f"a {o} in {style} style on a {color} background" for style, o, color in PICTURES]
    positive = torch.cat([clip.encode(prompt) for prompt in prompts])
    latents = torch.zeros(len(prompts), 4, 16, 16)
    samples = comfy.sample.sample(
        given, comfy.sample.prepare_noise(latents, 1), steps, 4.0, "euler", "normal",
        [[positive, {}]], [[clip.encode(""), {}]], latents, seed=1, disable_pbar=True,
    )  # fmt: skip
    return vae.decode(samples).movedim(-1, 1)


def judged(pictures: Tensor) -> list[tuple[str | None, ...]]:
    """Style, object and background of each picture."""
    folder = pack_module("nodes.demo_model").FOLDERS["EmojiCanvas"] / "evaluation"
    values = ConvJudge.load(folder).classify(pictures)
    return list(zip(values["style"], values["object"], values["background"], strict=True))


def differences(patched: Any) -> list[Tensor]:
    """The tensors of the last patch of each weight."""
    return [patches[-1][1][1][0] for patches in patched.patches.values()]


def test_the_concept_is_gone_and_the_rest_is_kept(demo: Any) -> None:
    weights = bits(demo[0])
    before = judged(drawn(demo, demo[0]))
    assert before == list(PICTURES)
    after = judged(drawn(demo, forget(demo)))
    assert "ink" not in {style for style, *_ in after}
    assert [content for _, *content in after] == [content for _, *content in before]
    assert after[2:] == before[2:]
    assert equal(bits(demo[0]), weights)


def test_strength_0_is_the_given_model(demo: Any) -> None:
    patched = forget(demo, strength=0.0)
    assert patched is not demo[0]
    assert patched.patches == demo[0].patches
    assert torch.equal(drawn(demo, patched, steps=2), drawn(demo, demo[0], steps=2))


def test_the_clip_is_passed_on_unchanged(demo: Any) -> None:
    given, clip, _ = demo
    assert node_result(QUICK_FORGET, model=given, clip=clip, **INK)[1] is clip


def test_another_strength_needs_no_new_edit(demo: Any) -> None:
    whole, half = forget(demo), forget(demo, strength=0.5)
    assert all(map(same, differences(whole), differences(half)))
    assert {patches[-1][0] for patches in half.patches.values()} == {0.5}
    other = forget(demo, concept="pixel", replacements="noto")
    assert not any(map(torch.equal, differences(whole), differences(other)))


def test_a_changed_model_is_edited_again(demo: Any) -> None:
    whole = forget(demo)
    again = forget(demo, model=forget(demo, concept="pixel", replacements="noto"))
    assert not any(map(torch.equal, differences(whole), differences(again)))


def same(one: object, other: object) -> bool:
    return one is other


def test_several_concepts_one_after_another(demo: Any) -> None:
    second = {"concept": "pixel", "replacements": "noto, twemoji, fluent"}
    after = judged(drawn(demo, forget(demo, model=forget(demo), **second)))
    assert not {"ink", "pixel"} & {style for style, *_ in after}
    assert after[2:5] == list(PICTURES[2:5])


@pytest.mark.parametrize("name", ["sd15", "sd21-v", "sdxl", "sd3"])
def test_the_edit_is_the_core_s(name: str) -> None:
    given, clip = model(name), StandInClip(ARCHITECTURES[name])
    patched = node_result(QUICK_FORGET, model=given, clip=clip)[0]
    module, core = pack_module("nodes.quick_forget"), pack_module("unlearn_core.unlearning.uce")
    widgets = defaults(QUICK_FORGET)
    words = (widgets["concept"], widgets["kind"], "", widgets["replacements"])
    handle = opened(name, given)
    settings = module.SETTINGS
    expected = core.edits(
        handle,
        module.prompts(module.concept_of(*words)),
        settings.retain_weight,
        settings.uce_tokens,
    )
    assert len(patched.patches) == len(expected)
    for weight, edited in expected.items():
        own = handle.network.weight(weight.removesuffix(".weight"))
        change = patched.patches[f"diffusion_model.{weight}"][-1][1][1][0]
        torch.testing.assert_close(change, (edited - own).float(), atol=1e-4, rtol=1e-3)
        assert change.abs().max() > 0.01


def test_models_in_16_bits_change_in_16_bits() -> None:
    given, clip = model("sd15", torch.float16), StandInClip(ARCHITECTURES["sd15"])
    given.set_model_compute_dtype(torch.bfloat16)
    changes = differences(node_result(QUICK_FORGET, model=given, clip=clip)[0])
    assert {change.dtype for change in changes} == {torch.float16}


@pytest.mark.parametrize(
    ("name", "label"), [("flux", "Flux"), ("z-image", "Z-Image"), ("qwen-image", "Qwen-Image")]
)
def test_other_architectures_are_refused(name: str, label: str) -> None:
    clip = StandInClip(ARCHITECTURES[name])
    with pytest.raises(ValueError, match=rf"got {label}; use From ComfyUI and Restricted Gradient"):
        run_node(QUICK_FORGET, model=model(name), clip=clip)


class WithT5(StandInClip):
    """Stable Diffusion 3's text encoders with T5."""

    class cond_stage_model:  # noqa: N801 - ComfyUI's name
        t5xxl = object()


def test_stable_diffusion_3_with_t5_is_refused() -> None:
    with pytest.raises(ValueError, match="got Stable Diffusion 3 with T5; use From ComfyUI"):
        run_node(QUICK_FORGET, model=model("sd3"), clip=WithT5(ARCHITECTURES["sd3"]))


def test_bad_words_are_refused_before_anything_runs() -> None:
    (refusal,) = refusals(QUICK_FORGET, concept=" ")
    assert "concept must name what to forget" in refusal


@pytest.mark.parametrize(
    ("inputs", "message"),
    [
        ({"strength": 2.5}, "strength must be 0 to 2, got 2.5"),
        ({"strength": math.nan}, "strength must be 0 to 2, got nan"),
        ({"kind": "colour"}, "kind must be one of"),
        ({"concept": ""}, "concept must name what to forget"),
        ({"replacements": "noto, ink"}, "replacements: 'ink' is or contains"),
    ],
)
def test_bad_input_is_refused(demo: Any, inputs: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        forget(demo, **inputs)


def test_cancel_leaves_everything_as_it_was(demo: Any) -> None:
    before = bits(demo[0])
    comfy.model_management.interrupt_current_processing()
    with pytest.raises(Interrupted):
        forget(demo, concept="fluent", replacements="noto")
    assert equal(bits(demo[0]), before)
    assert forget(demo, concept="fluent", replacements="noto").patches


@pytest.mark.parametrize(
    ("inputs", "text"),
    [
        ({}, "ink now draws as noto, twemoji, fluent, pixel; 60 prompt pairs; strength 1"),
        ({"replacements": "", "strength": 0.5},
         "ink is now left out of pictures; 60 prompt pairs; strength 0.5"),
        ({"strength": 0.0}, "strength 0: the model is unchanged"),
    ],
)  # fmt: skip
def test_it_tells_what_it_did(demo: Any, inputs: dict[str, Any], text: str) -> None:
    given, clip, _ = demo
    output = run_node(QUICK_FORGET, **{"model": given, "clip": clip, **INK, **inputs})
    assert shown_by(output) == {"text": [text]}


@pytest.mark.parametrize("kind", ["style", "object", "person", "nudity"])
def test_every_kind_has_prompts(demo: Any, kind: str) -> None:
    assert forget(demo, kind=kind, concept="Frida").patches


def test_only_the_last_edits_are_held() -> None:
    edits = pack_module("nodes.native.quick_edit").RecentEdits(most=2)
    new: list[str] = []

    def edit(name: str) -> dict[str, Tensor]:
        new.append(name)
        return {}

    requests = (
        ("1", "a"), ("1", "a"), ("1", "b"), ("2", "a"), ("1", "b"), ("3", "a"), ("1", "b"),
        ("2", "a"),
    )  # fmt: skip
    for node, origin in requests:
        edits.get(node, origin, partial(edit, node + origin))
    assert new == ["1a", "1b", "2a", "3a", "2a"]
