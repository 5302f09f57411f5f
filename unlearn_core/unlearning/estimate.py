"""Estimate of the memory that a run needs.

The sizes of weights, gradients and Adam's moments follow from the model. The size of the
activations depends on the architecture, the resolution and the kernels, so it is measured: with one
and with two pictures, from which it follows for any number. On the CPU, where a step of a full-size
model takes minutes, it is measured without computing anything.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from contextlib import nullcontext
from dataclasses import dataclass

import torch
from torch import Tensor
from torch._subclasses.fake_tensor import FakeTensorMode

from ..dataset.settings import GenerationSettings
from ..foundation.memory import free_unused, is_out_of_memory
from ..foundation.progress import ESTIMATING, Progress
from ..models.denoiser import DenoiserHandle
from ..models.layers import LOW_RANK
from ..models.protocol import Conditioning, ModelHandle
from ..models.text_to_image import TextToImageHandle
from .pieces import ON_CPU, ON_GPU
from .plan import Plan
from .profile import LiveBytes, Profile, drawing_bytes, fake_mode, profile
from .scopes import trainable
from .settings import UnlearnSettings
from .watch import CHECK_ROWS

PIECES = 6  # that the optimizer needs at once: both gradients, their sum, and updates


@dataclass(frozen=True)
class Sizes:
    """The memory of a run by its parts, in bytes.

    Attributes:
        model: the weights of the loaded model on the device during a step.
        trained: the trained copy of the weights, or the low-rank layers.
        optimizer: Adam's moments.
        gradient: one gradient of the trained weights.
        one, two: the profiles of a training step with one and with two pictures; ``two`` is None if
            two do not fit.
        smoothed: whether the retain gradient is smoothed, which needs a further copy.
        batches: whether the retain pictures of a step are more than one batch.
        good_state: the last good weights, which are in main memory; 0 on another device.
        pieces: intermediate results of the optimizer.
        check: the rows by which ``watch`` measures the damage.
        released: text encoders and autoencoder, which leave the device before the first step, and
            return for previews.
        drawing: the activations of drawing a batch of pictures.
    """

    model: int
    trained: int
    optimizer: int
    gradient: int
    one: Profile
    two: Profile | None
    smoothed: bool = False
    batches: bool = False
    good_state: int = 0
    pieces: int = 0
    check: int = 0
    released: int = 0
    drawing: int = 0

    def step(self, pictures: int, *, accumulates: bool = False) -> int:
        """Activations and the gradient in progress, for this number of pictures at once. In each
        section, the activations are a linear function of the number.

        Args:
            accumulates: add each gradient to an earlier one, which is not counted here.
        """
        more = self.two or self.one
        return max(
            one.peak
            + (pictures - 1) * (two.peak - one.peak)
            + (0 if accumulates else one.gradients)
            for one, two in zip(self.one, more, strict=True)
        )

    def parts(self, plan: Plan, batch_size: int) -> dict[str, int]:
        """Bytes of each part at the moment that needs most: in the retain gradient, when the forget
        gradient exists, and with several parts the sum of those before; or in the optimizer."""
        pictures = plan.at_once(batch_size)
        accumulates = self.batches or pictures < batch_size
        before = 1 + accumulates + self.smoothed
        step = self.step(pictures, accumulates=accumulates)
        moments = (before, step), (2 + self.smoothed, self.pieces)
        gradients, step = max(moments, key=lambda each: each[0] * self.gradient + each[1])
        return {
            "model": self.model,
            "trained weights": self.trained,
            "optimizer": self.optimizer,
            "good state": self.good_state,
            "check": self.check,
            "gradients": gradients * self.gradient,
            "step": step,
        }

    def preview(self) -> int:
        """Bytes while the pictures of a preview are drawn between two steps, which need most of
        all pictures."""
        stays = self.model + self.trained + self.optimizer + self.good_state + self.check
        return stays + self.smoothed * self.gradient + self.released + self.drawing

    def total(self, plan: Plan, batch_size: int) -> int:
        """The maximum over the phases of a run."""
        return max(sum(self.parts(plan, batch_size).values()), self.preview())


def sizes(
    base: ModelHandle,
    settings: UnlearnSettings,
    prompt: str,
    progress: Progress | None = None,
    *,
    drawing: GenerationSettings | None = None,
    own_pictures: bool = False,
) -> Sizes:
    """Measure the parts of a run's memory.

    Args:
        settings: without automatic values.
        prompt: any prompt that the model can encode.
        drawing: of the previews; None if no pictures are drawn during the run.
        own_pictures: whether a step has the user's own retain pictures besides the drawn ones.
    """
    progress = progress or Progress()
    with progress.phase(ESTIMATING, 3):
        fake = fake_mode(base)
        # peft moves its new layers, which fake ones refuse; they are small.
        with nullcontext() if fake is None or settings.scope in LOW_RANK else fake:
            model, parameters = trainable(base, settings)
        row = base.encode_prompts([prompt]).to(base.device)
        one = profile(model, parameters, row, progress, fake)
        progress.tick()
        two = _profile_of_two(model, parameters, row, progress, fake)
        progress.tick()
        pictures = _drawing(model, row, drawing, progress, fake) if drawing else 0
        progress.tick()
    trained = _bytes(parameters)
    on_cpu = base.device.type == "cpu"
    piece = min(sum(p.numel() for p in parameters), ON_CPU if on_cpu else ON_GPU)
    loaded = [*base.own_tensors(), *(parameter for _, parameter in base.named_parameters())]
    released = 0 if on_cpu else _bytes(_encoders(base))
    return Sizes(
        model=_bytes(loaded) - released,
        trained=trained,
        optimizer=2 * trained,
        gradient=trained,
        one=one,
        two=two,
        smoothed=settings.retain_ema > 0,
        batches=own_pictures or settings.retain_batch_factor != 1,
        good_state=trained if on_cpu else 0,
        pieces=PIECES * piece * torch.float32.itemsize,
        check=CHECK_ROWS * _check_row(base, row, prompts=3 + settings.harden),
        released=released,
        drawing=pictures,
    )


def _drawing(
    model: ModelHandle,
    row: Conditioning,
    drawing: GenerationSettings,
    progress: Progress,
    fake: FakeTensorMode | None,
) -> int:
    """Bytes of drawing with one of our own handles; ComfyUI manages the memory of its own VAE. 0 if
    memory runs out: the first pictures are drawn before the first step, and then report it."""
    if not isinstance(model, DenoiserHandle):
        return 0
    try:
        return drawing_bytes(model, row[[0]], drawing, progress, fake)
    except RuntimeError as error:
        if not is_out_of_memory(error):
            raise
    free_unused(model.device)
    return 0


def _encoders(model: ModelHandle) -> list[Tensor]:
    return model.encoders() if isinstance(model, TextToImageHandle) else []


def _check_row(base: ModelHandle, row: Conditioning, prompts: int) -> int:
    """Bytes of a row of ``watch``: its prompts, three pictures, and noise for two of them."""
    picture = math.prod(base.latent_shape) * torch.float32.itemsize
    with LiveBytes() as live:
        prompt = row[[0]]
        size = live.now
        del prompt
    return prompts * size + 5 * picture


def _profile_of_two(
    model: ModelHandle,
    parameters: Sequence[Tensor],
    row: Conditioning,
    progress: Progress,
    fake: FakeTensorMode | None,
) -> Profile | None:
    try:
        return profile(model, parameters, row[[0, 0]], progress, fake)
    except RuntimeError as error:
        if not is_out_of_memory(error):
            raise
    free_unused(model.device)  # only here, where nothing refers to the tensors any more
    return None


def _bytes(tensors: Sequence[Tensor]) -> int:
    """Bytes of tensors, each counted once."""
    return sum({id(tensor): tensor.nbytes for tensor in tensors}.values())
