"""Train everything in ``demo/models``: ``python -m demo.build`` (``--help`` for parts).

Takes about an hour and a half on two CPU cores, or a few minutes on a GPU. Needs scikit-learn in
addition to the package's own requirements. Intermediate results are stored in ``.build/`` and
reused.
"""

from __future__ import annotations

import argparse
import shutil
from pathlib import Path

import torch
from diffusers import AutoencoderKL

from demo.autoencoder import encode_pool, sharpen_decoder, train_autoencoder
from demo.diffusion import PHASES, save_pipeline, train_denoiser
from demo.digits import digit_pictures, save_digits, train_digit_judge, train_digits
from demo.evaluators import train_judge, train_scorer
from demo.pictures import make_pool
from unlearn_core.models.text import clip_tokenizer

ROOT = Path(__file__).resolve().parents[1]
BUILD = ROOT / ".build"
MODELS = Path(__file__).parent / "models"
EMOJI, DIGITS = MODELS / "emoji-canvas", MODELS / "digits"

POOL, POOL_SEED = 40_000, 1
AUTOENCODER_STEPS, DECODER_STEPS = 1700, 400
JUDGE_STEPS, SCORER_STEPS = 700, 500
DIGITS_STEPS, DIGIT_JUDGE_STEPS = 1600, 600


def build_emoji(device: torch.device) -> None:
    """Train the text-to-image model."""
    pool = make_pool(POOL, POOL_SEED, BUILD)
    folder, latents_file = BUILD / "autoencoder", BUILD / "latents.pt"
    if not latents_file.exists():
        vae = train_autoencoder(pool, AUTOENCODER_STEPS, device)
        vae.save_pretrained(folder)
        torch.save(encode_pool(vae, pool, device), latents_file)
    vae = AutoencoderKL.from_pretrained(folder)
    latents = torch.load(latents_file, weights_only=True)
    tokenizer = clip_tokenizer()
    scaled = latents * vae.config["scaling_factor"]
    model = None
    for seed, phase in enumerate(PHASES):
        model = train_denoiser(pool, scaled, tokenizer, phase, device, start=model, seed=seed)
    assert model is not None
    sharpen_decoder(vae, pool, latents, DECODER_STEPS, device)
    save_pipeline(model, vae, tokenizer, EMOJI)


def build_evaluators() -> None:
    """Train the classifier and the CLIP that evaluate it."""
    pool = make_pool(POOL, POOL_SEED, BUILD)
    folder = EMOJI / "evaluation"
    train_scorer(pool, folder, SCORER_STEPS)
    train_judge(pool, JUDGE_STEPS).save(folder)


def build_digits() -> None:
    """Train the class-conditional model and its classifier."""
    pictures, labels = digit_pictures()
    judge = train_digit_judge(pictures, labels, DIGIT_JUDGE_STEPS)
    save_digits(train_digits(pictures, labels, DIGITS_STEPS), judge, DIGITS)


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m demo.build", description=__doc__)
    parser.add_argument("--only", choices=("emoji", "evaluators", "digits"))
    parser.add_argument("--fresh", action="store_true", help="delete intermediate results first")
    options = parser.parse_args()
    if options.fresh:
        shutil.rmtree(BUILD, ignore_errors=True)
    BUILD.mkdir(exist_ok=True)
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    if options.only in (None, "emoji"):
        build_emoji(device)
    if options.only in (None, "evaluators"):
        build_evaluators()
    if options.only in (None, "digits"):
        build_digits()


if __name__ == "__main__":
    main()
