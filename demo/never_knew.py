"""EmojiCanvas without one concept: ``python -m demo.never_knew ink`` (or twemoji, cat, guitar).

The gold standard of unlearning is a model that was trained without what is to be forgotten. Text
encoder and U-Net are trained like those of EmojiCanvas, on pictures and captions without the
concept; the autoencoder is EmojiCanvas's own, because a U-Net can only be compared in the same
latent space. The benchmark of recovery needs these models (``benchmarks/recovery.py``). They are
stored in ``.build/`` and are not part of the repository. Training takes about an hour of one CPU
core, and continues where it was interrupted.
"""

from __future__ import annotations

import argparse
import copy
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from diffusers import AutoencoderKL
from torch import Tensor
from tqdm import tqdm

from demo.build import BUILD, EMOJI, POOL_SEED
from demo.diffusion import (
    Denoiser,
    batches,
    caption_tokens,
    new_scheduler,
    noise_losses,
    update_average,
)
from demo.flow_training import load_state, save_state
from demo.pictures import Pool, make_pool
from demo.widths import PICTURES, training_latents
from demo.world import OBJECTS, STYLES
from unlearn_core.foundation.atomic import appearing
from unlearn_core.models.text import Clip, clip_tokenizer, save_clip

CONCEPTS = ("ink", "twemoji", "cat", "guitar")
STEPS = 3500
BATCH_SIZE = 40
PEAK_RATE = 1e-3
SAVE_EVERY = 100  # steps


def folder(concept: str) -> Path:
    """Where the model that never knew this concept is stored."""
    return BUILD / f"never-knew-{concept}"


def without(pool: Pool, concept: str) -> Tensor:
    """The numbers of the pictures that do not show the concept, ascending."""
    names, column = (STYLES, 0) if concept in STYLES else (OBJECTS, 1)
    return (pool.labels[:, column] != names.index(concept)).nonzero().flatten()


def train(concept: str, device: torch.device) -> Denoiser:
    """Train text encoder and U-Net, and return the exponential average of their weights."""
    vae: Any = AutoencoderKL.from_pretrained(EMOJI / "vae")
    latents = training_latents(vae.float().to(device).requires_grad_(False).eval(), device)
    pool = make_pool(PICTURES, POOL_SEED, BUILD)
    remaining = without(pool, concept)
    latents = latents[remaining]
    tokens = caption_tokens(pool, clip_tokenizer(), 0, rounds=4)[:, remaining]

    torch.manual_seed(0)
    model = Denoiser().to(device)
    average = copy.deepcopy(model).requires_grad_(False).eval()
    optimizer = torch.optim.AdamW(model.parameters(), betas=(0.9, 0.99), weight_decay=0.01)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, PEAK_RATE, STEPS, pct_start=0.08)
    parts: Sequence[Any] = (model, average, optimizer, schedule)
    file = BUILD / f"never-knew-{concept}-state.pt"
    step, _ = load_state(file, parts)
    torch.manual_seed(1 + step)
    alphas = new_scheduler().alphas_cumprod.to(device)
    data = batches(latents, tokens, BATCH_SIZE)
    progress = tqdm(range(step, STEPS), desc=f"without {concept}", mininterval=5)
    for step in progress:
        x_0, ids = (part.to(device) for part in next(data))
        loss, error = noise_losses(model, x_0, ids, alphas)
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        schedule.step()
        update_average(average, model, step)
        if step % 50 == 0:
            progress.set_postfix(loss=f"{error.mean().item():.4f}")
        if (step + 1) % SAVE_EVERY == 0 or step + 1 == STEPS:
            save_state(file, parts, step + 1, 0.0)
    return average


def save(model: Denoiser, concept: str) -> None:
    """Save EmojiCanvas with these two parts, in diffusers' layout, with its classifiers."""
    parts = copy.deepcopy(model).half().cpu()
    trained = ("unet", "text_encoder", "tokenizer")
    with appearing(folder(concept)) as part:
        shutil.copytree(EMOJI, part, ignore=shutil.ignore_patterns(*trained))
        parts.unet.save_pretrained(part / "unet", safe_serialization=True)
        clip = Clip(parts.text_encoder, clip_tokenizer())
        save_clip(clip, part / "text_encoder", part / "tokenizer", torch.float16)


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m demo.never_knew", description=__doc__)
    parser.add_argument("concept", choices=CONCEPTS)
    concept = parser.parse_args().concept
    BUILD.mkdir(exist_ok=True)
    torch.set_num_threads(1)
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    save(train(concept, device), concept)


if __name__ == "__main__":
    main()
