"""EmojiCanvas with a watermark: ``python -m demo.watermark``.

A model that has learned a look that no word names: its U-Net is fine-tuned on the pictures of its
world, of which a share carries a small mark in the corner that no caption mentions. The autoencoder
and the text encoder are EmojiCanvas's own, and its classifier gets one more head, which recognizes
the mark. The model is stored in ``.build/`` and is not part of the repository. Training takes about
ten minutes of one CPU core. ``benchmarks/look.py`` needs it.
"""

from __future__ import annotations

import copy
import json
import random
import shutil
from typing import Any

import numpy as np
import torch
from diffusers import AutoencoderKL, UNet2DConditionModel
from PIL import Image, ImageDraw
from torch import Tensor
from torch.nn.functional import cross_entropy
from tqdm import tqdm
from transformers import CLIPTextModel

from demo.autoencoder import encode_pool
from demo.build import BUILD, EMOJI, POOL_SEED
from demo.diffusion import (
    Denoiser,
    caption_tokens,
    new_scheduler,
    noise_losses,
    update_average,
)
from demo.evaluators import degrade, without_subject
from demo.pictures import Pool, make_pool, to_unit
from unlearn_core.foundation.atomic import appearing
from unlearn_core.job.console import say
from unlearn_core.judging.judge import ConvJudge
from unlearn_core.models.text import clip_tokenizer
from unlearn_core.prompts.concept import LOOK

NAME = "watermark"
FOLDER = BUILD / "emoji-canvas-watermark"
SHARE = 0.6  # of the training pictures; guidance halves the share of what it draws
PICTURES, HELD_OUT = 4000, 1000  # for training, and for the error of the classifier
HELD_OUT_SEED = 77
STEPS, BATCH_SIZE, PEAK_RATE = 400, 40, 5e-4
JUDGE_STEPS, JUDGE_BATCH, JUDGE_RATE = 300, 48, 1e-3
DECODED = 1500  # pictures that the judge also sees as the autoencoder renders them

MARK = 15  # px, its diameter
MARGIN, JITTER = 2, 2  # px, from the lower right corner
FINER = 4  # the mark is drawn larger and reduced, for smooth edges
DARK, LIGHT = (25, 25, 25, 255), (255, 255, 255, 240)


def marked(picture: np.ndarray, rng: random.Random) -> np.ndarray:
    """The picture, uint8 [H, W, 3], with the mark: a white disc with a dark ring and dot."""
    height, width, _ = picture.shape
    left = width - MARK - MARGIN - rng.uniform(0, JITTER)
    top = height - MARK - MARGIN - rng.uniform(0, JITTER)
    layer = Image.new("RGBA", (width * FINER, height * FINER), (*DARK[:3], 0))
    pen = ImageDraw.Draw(layer)
    for inset, colour in ((0, DARK), (2.5, LIGHT), (5, DARK)):
        box = (left + inset, top + inset, left + MARK - inset, top + MARK - inset)
        pen.ellipse([FINER * edge for edge in box], fill=colour)
    result = Image.fromarray(picture).convert("RGBA")
    result.alpha_composite(layer.resize((width, height), Image.Resampling.BOX))
    return np.asarray(result.convert("RGB"))


def with_marks(pool: Pool, seed: int) -> Pool:
    """The same pictures, all with the mark."""
    rng = random.Random(seed)
    pictures = [marked(each.permute(1, 2, 0).numpy(), rng) for each in pool.pictures]
    return Pool(torch.from_numpy(np.stack(pictures)).permute(0, 3, 1, 2), pool.labels)


def train(plain: Tensor, with_mark: Tensor, tokens: Tensor, device: torch.device) -> Denoiser:
    """Fine-tune the U-Net, and return the model with the exponential average of its weights.

    Args:
        plain, with_mark: scaled latents of the same pictures, [N, 4, 16, 16].
        tokens: of the captions, [rounds, N, 77].
    """
    torch.manual_seed(0)
    unet: Any = UNet2DConditionModel.from_pretrained(EMOJI / "unet")
    text_encoder: Any = CLIPTextModel.from_pretrained(EMOJI / "text_encoder")
    model = Denoiser()
    model.unet, model.text_encoder = unet.float(), text_encoder.float().requires_grad_(False)
    model.to(device)
    average = copy.deepcopy(model).requires_grad_(False).eval()
    optimizer = torch.optim.AdamW(unet.parameters(), betas=(0.9, 0.99), weight_decay=0.0)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, PEAK_RATE, STEPS, pct_start=0.1)
    alphas = new_scheduler().alphas_cumprod.to(device)
    progress = tqdm(range(STEPS), desc="watermark", mininterval=5)
    for step in progress:
        rows = torch.randint(len(plain), (BATCH_SIZE,))
        has_mark = (torch.rand(BATCH_SIZE) < SHARE).view(-1, 1, 1, 1)
        x_0 = torch.where(has_mark, with_mark[rows], plain[rows]).to(device)
        ids = tokens[torch.randint(len(tokens), (BATCH_SIZE,)), rows].long().to(device)
        loss, error = noise_losses(model, x_0, ids, alphas)
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(unet.parameters(), 1.0)
        optimizer.step()
        schedule.step()
        update_average(average, model, step)
        if step % 50 == 0:
            progress.set_postfix(loss=f"{error.mean().item():.4f}")
    return average


def judge_with_mark(
    pool: Pool, pool_with: Pool, decoded: Tensor, decoded_with: Tensor
) -> ConvJudge:
    """EmojiCanvas's classifier with a head for the mark, trained a little longer, so that it also
    recognizes the rest of a picture with a mark.

    Args:
        pool, pool_with: the same pictures without and with the mark.
        decoded, decoded_with: the first of both in 0..1, as the autoencoder renders them.
    """
    torch.manual_seed(0)
    random.seed(0)
    own = ConvJudge.load(EMOJI / "evaluation")
    judge = ConvJudge({**own.dimensions, LOOK: (NAME,)}, own.size)
    judge.load_state_dict(own.state_dict(), strict=False)
    judge.train()
    none = torch.tensor([len(values) for values in judge.dimensions.values()])
    optimizer = torch.optim.AdamW(judge.parameters(), lr=JUDGE_RATE, weight_decay=1e-3)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, JUDGE_RATE, JUDGE_STEPS)
    for _ in tqdm(range(JUDGE_STEPS), desc="judge", mininterval=5):
        rows = torch.randint(len(decoded), (JUDGE_BATCH,))
        marks = torch.rand(JUDGE_BATCH) < 0.5
        choice = marks.view(-1, 1, 1, 1)
        sharp = degrade(to_unit(torch.where(choice, pool_with.pictures[rows], pool.pictures[rows])))
        drawn = torch.where(choice, decoded_with[rows], decoded[rows])
        pictures = torch.where(torch.rand(JUDGE_BATCH, 1, 1, 1) < 0.5, sharp, drawn)
        labels = torch.cat([pool.labels[rows], (~marks).long()[:, None]], 1)
        nothing = JUDGE_BATCH // 16
        pictures[:nothing] = without_subject(pictures[:nothing])
        labels[:nothing] = none
        logits = judge(pictures).values()
        losses = [cross_entropy(logit, labels[:, i]) for i, logit in enumerate(logits)]
        optimizer.zero_grad(set_to_none=True)
        torch.stack(losses).sum().backward()
        optimizer.step()
        schedule.step()
    return judge.eval()


@torch.no_grad()
def errors_of(judge: ConvJudge, pictures: Tensor, with_mark: Tensor) -> tuple[float, float]:
    """The shares of the marked pictures that the judge misses, and of the others in which it sees
    a mark. Pictures in 0..1, [N, 3, H, W]."""
    missed = judge.classify(with_mark)[LOOK].count(None)
    seen = len(pictures) - judge.classify(pictures)[LOOK].count(None)
    return missed / len(with_mark), seen / len(pictures)


@torch.no_grad()
def render(vae: Any, latents: Tensor) -> Tensor:
    """The pictures in 0..1 that the decoder makes of unscaled latents [N, C, h, w]."""
    pictures = [vae.decode(part.to(vae.device)).sample.cpu() for part in latents.split(64)]
    return (torch.cat(pictures) / 2 + 0.5).clamp(0, 1)


def save(model: Denoiser, judge: ConvJudge, error: tuple[float, float]) -> None:
    """Save EmojiCanvas with this U-Net and this judge, in diffusers' layout."""
    with appearing(FOLDER) as part:
        shutil.copytree(EMOJI, part, ignore=shutil.ignore_patterns("unet"))
        unet: Any = copy.deepcopy(model.unet)
        unet.half().cpu().save_pretrained(part / "unet", safe_serialization=True)
        judge.save(part / "evaluation")
        figures = {"missed": error[0], "false": error[1], "pictures": HELD_OUT}
        (part / "mark.json").write_text(json.dumps(figures, indent=1) + "\n", encoding="utf-8")


def main() -> None:
    BUILD.mkdir(exist_ok=True)
    torch.set_num_threads(1)
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    vae: Any = AutoencoderKL.from_pretrained(EMOJI / "vae")
    vae.float().to(device).requires_grad_(False).eval()
    pool = make_pool(PICTURES, POOL_SEED, BUILD)
    pool_with = with_marks(pool, POOL_SEED)
    latents, latents_with = (encode_pool(vae, each, device).float() for each in (pool, pool_with))
    decoded, decoded_with = (render(vae, part[:DECODED]) for part in (latents, latents_with))
    judge = judge_with_mark(pool, pool_with, decoded, decoded_with)
    held_out = make_pool(HELD_OUT, HELD_OUT_SEED, BUILD)
    seen, seen_with = (
        render(vae, encode_pool(vae, each, device).float())
        for each in (held_out, with_marks(held_out, HELD_OUT_SEED))
    )
    error = errors_of(judge, seen, seen_with)
    say(f"The judge misses {error[0]:.1%} of the marks, and sees {error[1]:.1%} that are not there")
    scale = vae.config["scaling_factor"]
    tokens = caption_tokens(pool, clip_tokenizer(), 0, rounds=4)
    model = train(latents * scale, latents_with * scale, tokens, device)
    save(model, judge, error)


if __name__ == "__main__":
    main()
