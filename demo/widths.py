"""EmojiCanvas denoisers of other widths: ``python -m demo.widths wide`` or ``narrow``.

They share the autoencoder and the text encoder of EmojiCanvas, and learn to predict what its U-Net
predicts. The target is free of noise, so training is several times shorter than from pictures
alone. The benchmark of the learning rate needs them (``benchmarks/rates.py``). The models are
stored in ``.build/`` and are not part of the repository. Training takes about an hour of one CPU
core for ``narrow`` and three hours for ``wide``, and continues where it was interrupted.
"""

from __future__ import annotations

import argparse
import copy
import json
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from diffusers import AutoencoderKL, UNet2DConditionModel
from torch import Tensor
from tqdm import tqdm
from transformers import CLIPTextModel

from demo.autoencoder import encode_pool
from demo.build import BUILD, EMOJI, POOL_SEED
from demo.diffusion import batches, caption_tokens, new_scheduler, update_average
from demo.flow_training import load_state, save_state
from demo.pictures import make_pool
from demo.precision import mixed_precision
from unlearn_core.foundation.atomic import appearing
from unlearn_core.models.text import clip_tokenizer

CHANNELS = {"wide": (96, 176, 224), "narrow": (32, 64, 80)}
"""1.4 times and half as many as in EmojiCanvas."""
STEPS = {"wide": 2400, "narrow": 4000}
PICTURES = 16_000
BATCH_SIZE = 32
PEAK_RATES = {"wide": 7e-4, "narrow": 2e-3}  # the wide one diverged at 2e-3
SAVE_EVERY = 100  # steps


def folder(width: str) -> Path:
    """Where the model of this width is stored."""
    return BUILD / f"emoji-canvas-{width}"


def new_unet(width: str) -> UNet2DConditionModel:
    """An untrained U-Net with the architecture of EmojiCanvas and other widths."""
    config = json.loads((EMOJI / "unet" / "config.json").read_text(encoding="utf-8"))
    model: Any = UNet2DConditionModel.from_config(config | {"block_out_channels": CHANNELS[width]})
    return model


def training_latents(vae: AutoencoderKL, device: torch.device) -> Tensor:
    """Scaled latents of the training pictures, [N, 4, 16, 16], from an earlier call or new."""
    file = BUILD / f"widths-latents-{PICTURES}.pt"
    if not file.exists():
        latents = encode_pool(vae, make_pool(PICTURES, POOL_SEED, BUILD), device)
        with appearing(file) as path:
            torch.save(latents, path)
    return torch.load(file, weights_only=True) * vae.config["scaling_factor"]


def train(width: str, device: torch.device) -> UNet2DConditionModel:
    """Train a U-Net, and return the exponential average of its weights."""
    vae: Any = AutoencoderKL.from_pretrained(EMOJI / "vae")
    text_encoder: Any = CLIPTextModel.from_pretrained(EMOJI / "text_encoder")
    teacher: Any = UNet2DConditionModel.from_pretrained(EMOJI / "unet")
    for frozen in (vae, text_encoder, teacher):
        frozen.float().to(device).requires_grad_(False).eval()
    latents = training_latents(vae, device)
    tokens = caption_tokens(make_pool(PICTURES, POOL_SEED, BUILD), clip_tokenizer(), 0, rounds=4)

    torch.manual_seed(0)
    student = new_unet(width)
    student.to(device)  # pyright: ignore[reportArgumentType]
    average = copy.deepcopy(student).requires_grad_(False).eval()
    optimizer = torch.optim.AdamW(student.parameters(), betas=(0.9, 0.99), weight_decay=0.01)
    schedule = torch.optim.lr_scheduler.OneCycleLR(
        optimizer, PEAK_RATES[width], STEPS[width], pct_start=0.08
    )
    parts: Sequence[Any] = (student, average, optimizer, schedule)
    file = BUILD / f"widths-{width}-state.pt"
    step, _ = load_state(file, parts)
    torch.manual_seed(1 + step)
    alphas = new_scheduler().alphas_cumprod.to(device)
    data = batches(latents, tokens, BATCH_SIZE)
    progress = tqdm(range(step, STEPS[width]), desc=width, mininterval=5)
    for step in progress:
        x_0, ids = (part.to(device) for part in next(data))
        # Stratified timesteps: every batch covers the whole schedule, so the loss is less noisy.
        strata = torch.arange(len(x_0), device=device) + torch.rand(len(x_0), device=device)
        t = (strata / len(x_0) * len(alphas)).long().clamp(max=len(alphas) - 1)
        alpha = alphas[t].view(-1, 1, 1, 1)
        x_t = alpha.sqrt() * x_0 + (1 - alpha).sqrt() * torch.randn_like(x_0)
        with mixed_precision(device):
            with torch.no_grad():
                context = text_encoder(ids).last_hidden_state
                target = teacher(x_t, t, context).sample
            output = student(x_t, t, context).sample
        loss = (output.float() - target.float()).pow(2).mean()
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(student.parameters(), 1.0)
        optimizer.step()
        schedule.step()
        update_average(average, student, step)
        if step % 50 == 0:
            progress.set_postfix(loss=f"{loss.item():.5f}")
        if (step + 1) % SAVE_EVERY == 0:
            save_state(file, parts, step + 1, 0.0)
    return average


def save(unet: UNet2DConditionModel, width: str) -> None:
    """Save EmojiCanvas with this U-Net, in diffusers' layout, with its classifiers."""
    with appearing(folder(width)) as part:
        shutil.copytree(EMOJI, part, ignore=shutil.ignore_patterns("unet"))
        copy.deepcopy(unet).half().cpu().save_pretrained(part / "unet", safe_serialization=True)


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m demo.widths", description=__doc__)
    parser.add_argument("width", choices=CHANNELS)
    BUILD.mkdir(exist_ok=True)
    width = parser.parse_args().width
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    save(train(width, device), width)


if __name__ == "__main__":
    main()
