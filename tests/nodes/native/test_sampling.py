"""Pictures drawn by ComfyUI's samplers."""

from __future__ import annotations

from typing import Any

import comfy.sample
import pytest
import torch
from torch import Tensor

from ..pack import pack_module
from .conftest import every_architecture, opened
from .test_gradients import PROMPTS, trainable
from .test_hooks import untouched

DRAWN = {"steps": 3, "guidance_scale": 3.0}


def drawn(handle: Any, prompts: list[str], seeds: list[int], **options: Any) -> Tensor:
    return handle.sample(prompts, seeds, **{**DRAWN, **options})


@every_architecture
def test_a_seed_gives_the_same_picture_in_any_batch(name: str) -> None:
    handle = opened(name)
    together = drawn(handle, PROMPTS, [1, 2, 3])
    assert together.shape == (3, *handle.latent_shape)
    assert together.isfinite().all()
    alone = drawn(handle, PROMPTS[1:2], [2])
    torch.testing.assert_close(together[1:2], alone, rtol=1e-3, atol=1e-3)
    assert (together[0] - together[1]).abs().max() > 0.1
    images = handle.decode_latents(together)
    assert images.shape == (3, 3, 64, 64)
    assert images.min() >= 0
    assert images.max() <= 1
    assert not images.is_inference()
    latents = handle.encode_images(images)
    assert latents.shape == together.shape


@every_architecture
def test_the_trained_layers_are_on(name: str) -> None:
    handle = opened(name)
    copied, _ = trainable(handle)
    before, after = (drawn(one, PROMPTS[:1], [1]) for one in (handle, copied))
    assert (before - after).abs().max() > 1e-3
    assert untouched(copied)


@pytest.mark.parametrize("name", ["flux", "z-image", "qwen-image"])
def test_the_picture_is_that_of_ksampler(name: str) -> None:
    handle = opened(name)
    family, patcher = handle.network.family, handle.network.given
    prompt, empty = (handle.encode_prompts([text]).rows[0] for text in (PROMPTS[0], ""))
    with torch.inference_mode():
        channels, height, width = handle.latent_shape
        latent = torch.zeros(1, channels, height, width)
        latent = comfy.sample.fix_empty_latent_channels(patcher, latent)
        noise = comfy.sample.prepare_noise(latent, 7)
        ours = comfy.sample.sample(
            patcher, noise, 3, 3.0, family.sampler, family.scheduler,
            prompt.as_conditioning(), empty.as_conditioning(), latent, disable_pbar=True, seed=7,
        )  # fmt: skip
    scaled = handle.network.latent_format.process_in(ours)
    torch.testing.assert_close(
        drawn(handle, PROMPTS[:1], [7]), handle.network.without_axis(scaled), rtol=1e-4, atol=1e-4
    )


def test_guidance_1_needs_no_second_prediction() -> None:
    handle = opened("flux")
    calls: list[int] = []

    def count(module: object, inputs: tuple[Tensor, ...]) -> None:
        calls.append(len(inputs[0]))

    with handle.network.module.img_in.register_forward_pre_hook(count):
        drawn(handle, PROMPTS[:1], [1], guidance_scale=1.0)
        assert sum(calls) == 3
        drawn(handle, PROMPTS[:1], [1])
    assert sum(calls) == 3 + 2 * 3


@pytest.mark.parametrize("name", ["flux", "sd15"])
def test_progress_can_stop_it_after_a_step(name: str) -> None:
    class Stopped(Exception):  # noqa: N818
        """Cancel."""

    class Stopping(pack_module("unlearn_core.foundation.progress").Progress):
        checks = 0

        def check(self) -> None:
            self.checks += 1
            if self.checks == 2:
                raise Stopped

    copied, _ = trainable(opened(name))
    progress = Stopping()
    with pytest.raises(Stopped):
        drawn(copied, PROMPTS[:1], [1], steps=8, progress=progress)
    assert progress.checks == 2
    assert untouched(copied)


def test_a_model_with_its_own_guidance_is_sampled_by_comfyui() -> None:
    """RescaleCFG and the like."""
    handle = opened("sd15")
    calls: list[float] = []

    def guidance(args: dict[str, Any]) -> Tensor:
        calls.append(args["cond_scale"])
        return args["uncond"] + args["cond_scale"] * (args["cond"] - args["uncond"])

    plain = drawn(handle, PROMPTS[:1], [1])
    handle.network.given.set_model_sampler_cfg_function(guidance)
    with_guidance = opened("sd15", handle.network.given)
    other = drawn(with_guidance, PROMPTS[:1], [1])
    assert calls == [3.0] * 3
    assert plain.shape == other.shape
    again = opened("sd15", handle.network.given).info.fingerprint
    assert again != with_guidance.info.fingerprint, "its cached pictures may be another function's"
