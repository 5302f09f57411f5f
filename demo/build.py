"""Train everything in ``demo/models``: ``python -m demo.build`` (``--help`` for parts).

Takes a few hours on two CPU cores, or a few minutes on a GPU. Needs scikit-learn in
addition to the package's own requirements. Intermediate results are stored in ``.build/`` and
reused.
"""

from __future__ import annotations

import argparse
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from diffusers import AutoencoderKL
from torch import Tensor

from demo.autoencoder import encode_pool, sharpen_decoder, train_autoencoder
from demo.diffusion import PHASES, save_pipeline, train_denoiser
from demo.digits import digit_pictures, save_digits, train_digit_judge, train_digits
from demo.evaluators import train_judge, train_scorer
from demo.flow import SHAPE as FLOW_SHAPE
from demo.flow import save_flow
from demo.flow_training import Training, train_flow
from demo.pictures import Pool, make_pool
from demo.timing import timed
from demo.world import STYLES
from unlearn_core.foundation.atomic import appearing
from unlearn_core.models.text import clip_tokenizer

ROOT = Path(__file__).resolve().parents[1]
BUILD = ROOT / ".build"
MODELS = Path(__file__).parent / "models"
EMOJI, DIGITS = MODELS / "emoji-canvas", MODELS / "digits"
FLOW = MODELS / "emoji-canvas-flow"

POOL, POOL_SEED = 40_000, 1
AUTOENCODER_STEPS, DECODER_STEPS = 1700, 400
FLOW_POOL = 32_000
FLOW_AUTOENCODER_ROUNDS = (1500, 16, False), (900, 8, True)  # steps, batch size, colours
# Noto's details are the last to be learned; without them, a coarse noto looks like pixel.
FLOW_DECODER_ROUNDS = (1400, 1.0), (1200, 3.0), (1500, 3.0)  # steps, relative frequency of noto
FLOW_TRAINING = Training(steps=3600)
JUDGE_STEPS, SCORER_STEPS = 700, 500
DIGITS_STEPS, DIGIT_JUDGE_STEPS = 1600, 600


def build_emoji(device: torch.device) -> None:
    """Train the text-to-image model."""
    pool = make_pool(POOL, POOL_SEED, BUILD)
    vae, latents = autoencoder_and_latents(
        "", pool, lambda: train_autoencoder(pool, AUTOENCODER_STEPS, device), device
    )
    tokenizer = clip_tokenizer()
    scaled = latents * vae.config["scaling_factor"]
    model = None
    with timed("text encoder and U-Net"):
        for seed, phase in enumerate(PHASES):
            model = train_denoiser(pool, scaled, tokenizer, phase, device, start=model, seed=seed)
    assert model is not None
    with timed("decoder"):
        sharpen_decoder(vae, pool, latents, DECODER_STEPS, device)
    save_pipeline(model, vae, tokenizer, EMOJI)


def build_flow(device: torch.device) -> None:
    """Train the flow-matching text-to-image model."""
    pool = make_pool(FLOW_POOL, POOL_SEED, BUILD, FLOW_SHAPE.size)
    vae, latents = autoencoder_and_latents(
        "flow-",
        pool,
        lambda: train_flow_autoencoder(pool, device),
        device,
    )
    scaled = (latents - vae.config["shift_factor"]) * vae.config["scaling_factor"]
    model = train_flow(pool, scaled, FLOW_TRAINING, device, BUILD / "flow-state.pt")
    noto = pool.labels[:, 0] == STYLES.index("noto")
    with timed("decoder"):
        for seed, (steps, frequency) in enumerate(FLOW_DECODER_ROUNDS, 1):
            weights = torch.where(noto, frequency, 1.0)
            sharpen_decoder(vae, pool, latents, steps, device, seed, weights=weights)
    save_flow(model, vae, FLOW)


def train_flow_autoencoder(pool: Pool, device: torch.device) -> Any:
    """Two rounds, of which only the second requires the latents to show the colours."""
    vae = None
    for seed, (steps, batch_size, colours) in enumerate(FLOW_AUTOENCODER_ROUNDS):
        vae = train_autoencoder(
            pool, steps, device, FLOW_SHAPE, seed, batch_size, start=vae, colours=colours
        )
    return vae


def autoencoder_and_latents(
    prefix: str, pool: Pool, train: Callable[[], Any], device: torch.device
) -> tuple[Any, Tensor]:
    """The trained autoencoder and its unscaled latents of the pool, from an earlier call or new."""
    folder, file = BUILD / f"{prefix}autoencoder", BUILD / f"{prefix}latents.pt"
    if not file.exists():
        with timed("autoencoder"):
            vae = train()
            vae.save_pretrained(folder)
        latents = encode_pool(vae, pool, device)
        with appearing(file) as path:
            torch.save(latents, path)
    return AutoencoderKL.from_pretrained(folder), torch.load(file, weights_only=True)


def build_evaluators() -> None:
    """Train the classifier and the CLIP that evaluate it."""
    pool = make_pool(POOL, POOL_SEED, BUILD)
    folder = EMOJI / "evaluation"
    with timed("scorer"):
        train_scorer(pool, folder, SCORER_STEPS)
    with timed("judge"):
        train_judge(pool, JUDGE_STEPS).save(folder)


def build_digits() -> None:
    """Train the class-conditional model and its classifier."""
    pictures, labels = digit_pictures()
    with timed("judge of digits"):
        judge = train_digit_judge(pictures, labels, DIGIT_JUDGE_STEPS)
    with timed("digits"):
        unet = train_digits(pictures, labels, DIGITS_STEPS)
    save_digits(unet, judge, DIGITS)


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m demo.build", description=__doc__)
    parser.add_argument("--only", choices=("emoji", "flow", "evaluators", "digits"))
    parser.add_argument("--fresh", action="store_true", help="delete intermediate results first")
    options = parser.parse_args()
    if options.fresh:
        shutil.rmtree(BUILD, ignore_errors=True)
    BUILD.mkdir(exist_ok=True)
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    if options.only in (None, "emoji"):
        build_emoji(device)
    if options.only in (None, "flow"):
        build_flow(device)
    if options.only in (None, "evaluators"):
        build_evaluators()
    if options.only in (None, "digits"):
        build_digits()


if __name__ == "__main__":
    main()
