"""Training of EmojiCanvas-Flow's transformer and text encoders by flow matching."""

from __future__ import annotations

import copy
import time
from collections.abc import Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.optim import Optimizer
from tqdm import tqdm

from demo.diffusion import batches, caption_tokens, update_average
from demo.flow import SHIFT, FlowDenoiser
from demo.pictures import Pool
from demo.precision import mixed_precision
from unlearn_core.foundation.atomic import appearing
from unlearn_core.job.console import say
from unlearn_core.models.text import clip_tokenizer

SAVE_EVERY = 250  # steps


@dataclass(frozen=True)
class Training:
    """Constant learning rate after a warm-up, then a linear decay to zero.

    Attributes:
        matrix_rate: learning rate of the transformer blocks' matrices, trained by Muon.
        rate: learning rate of everything else, trained by AdamW.
    """

    steps: int
    warm_up: int = 200
    decay: int = 2000
    matrix_rate: float = 2e-3
    rate: float = 1e-3
    batch_size: int = 40

    def rate_factor(self, step: int) -> float:
        return min(1.0, (step + 1) / self.warm_up, (self.steps - step) / self.decay)


def noise_levels(count: int, device: torch.device) -> Tensor:
    """Logit-normal noise levels (Esser et al. 2024), shifted; stratified, so that every batch
    covers the whole distribution, and the loss is less noisy."""
    strata = (torch.arange(count, device=device) + torch.rand(count, device=device)) / count
    sigmas = torch.special.ndtri(strata.clamp(1e-5, 1 - 1e-5)).sigmoid()
    return SHIFT * sigmas / (1 + (SHIFT - 1) * sigmas)


def new_optimizers(model: FlowDenoiser, training: Training) -> list[Optimizer]:
    """Muon for the transformer blocks' matrices, AdamW for all other parameters."""
    blocks = model.transformer.transformer_blocks
    matrices = [p for p in blocks.parameters() if p.ndim == 2]
    known = {id(p) for p in matrices}
    others = [p for p in model.parameters() if id(p) not in known]
    return [
        torch.optim.Muon(
            matrices, training.matrix_rate, weight_decay=0.01, adjust_lr_fn="match_rms_adamw"
        ),
        torch.optim.AdamW(others, training.rate, betas=(0.9, 0.99), weight_decay=0.01, fused=True),
    ]


def flow_loss(model: FlowDenoiser, x_0: Tensor, tokens: Tensor) -> Tensor:
    """Mean squared error of the predicted velocity of rectified flow, noise - x_0."""
    noise, sigmas = torch.randn_like(x_0), noise_levels(len(x_0), x_0.device)
    sigma = sigmas.view(-1, 1, 1, 1)
    # On a CPU, the backward pass of the fused attention takes five times as long as plain products.
    plain = sdpa_kernel(SDPBackend.MATH) if x_0.device.type == "cpu" else nullcontext()
    with mixed_precision(x_0.device), plain:
        output = model((1 - sigma) * x_0 + sigma * noise, sigmas, tokens)
    return (output.float() - (noise - x_0)).pow(2).mean()


def update_weights(
    model: FlowDenoiser, optimizers: Sequence[Optimizer], loss: Tensor, rate_factor: float
) -> None:
    """One step of every optimizer at ``rate_factor`` times its peak learning rate."""
    for optimizer in optimizers:
        optimizer.zero_grad(set_to_none=True)
    loss.backward()
    torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
    for optimizer in optimizers:
        for group in optimizer.param_groups:
            group["lr"] = rate_factor * optimizer.defaults["lr"]
        optimizer.step()


def save_state(file: Path, parts: Sequence[Any], step: int, seconds: float) -> None:
    """Write the state of the model, its average and the optimizers after ``step`` steps."""
    state = {"step": step, "seconds": seconds, "parts": [part.state_dict() for part in parts]}
    with appearing(file) as path:
        torch.save(state, path)


def load_state(file: Path, parts: Sequence[Any]) -> tuple[int, float]:
    """Load a saved state into ``parts``, and return its step and its seconds; (0, 0) if there is
    none."""
    if not file.exists():
        return 0, 0.0
    state = torch.load(file, weights_only=True)
    for part, values in zip(parts, state["parts"], strict=True):
        part.load_state_dict(values)
    return state["step"], state["seconds"]


def train_flow(
    pool: Pool,
    latents: Tensor,
    training: Training,
    device: torch.device,
    state_file: Path,
    seed: int = 0,
) -> FlowDenoiser:
    """Train, and return the exponential average of the weights.

    ``latents`` are shifted and scaled, [N, 8, 16, 16]. The state of the training is written to
    ``state_file`` every ``SAVE_EVERY`` steps, and is continued if the file exists.
    """
    tokens = caption_tokens(pool, clip_tokenizer(), seed, rounds=4)
    torch.manual_seed(seed)
    model = FlowDenoiser().to(device)
    average = copy.deepcopy(model).requires_grad_(False).eval()
    optimizers = new_optimizers(model, training)
    parts = [model, average, *optimizers]
    step, seconds = load_state(state_file, parts)
    torch.manual_seed(seed + step)
    data = batches(latents, tokens, training.batch_size)
    progress = tqdm(range(step, training.steps), desc="flow", mininterval=5)
    start = time.monotonic() - seconds
    for step in progress:
        x_0, ids = (part.to(device) for part in next(data))
        loss = flow_loss(model, x_0, ids)
        update_weights(model, optimizers, loss, training.rate_factor(step))
        update_average(average, model, step)
        if step % 50 == 0:
            progress.set_postfix(loss=f"{loss.item():.4f}")
        if (step + 1) % SAVE_EVERY == 0 or step + 1 == training.steps:
            save_state(state_file, parts, step + 1, time.monotonic() - start)
    say(f"text encoders and transformer: {(time.monotonic() - start) / 60:.1f} min")
    return average
