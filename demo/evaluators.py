"""Training of EmojiCanvas's evaluators: a classifier and a small open_clip model.

Both are trained only on artwork, never on pictures drawn by a model, so they are independent of it.
"""

from __future__ import annotations

import json
import random
from pathlib import Path

import open_clip
import torch
import torch.nn.functional as F
from safetensors.torch import save_file
from torch import Tensor
from tqdm import tqdm

from demo.artwork import SIZE
from demo.pictures import Pool, to_unit
from demo.world import BACKGROUNDS, FULL_CAPTIONS, OBJECTS, STYLES, fill_caption
from unlearn_core.judging.judge import ConvJudge

NEGATIVES = 0.15  # share of pictures that show nothing: noise, or artwork beyond recognition

SCORER_CONFIG: dict[str, object] = {
    "model_cfg": {
        "embed_dim": 64,
        "vision_cfg": {"image_size": 64, "layers": [1, 1, 1, 1], "width": 12, "head_width": 64},
        "text_cfg": {
            "context_length": 77,
            "vocab_size": 49408,
            "width": 48,
            "heads": 4,
            "layers": 2,
        },
    },
    "preprocess_cfg": {
        "mean": [0.5, 0.5, 0.5],
        "std": [0.5, 0.5, 0.5],
        "interpolation": "bicubic",
        "resize_mode": "squash",
    },
}


def degrade(pictures: Tensor) -> Tensor:
    """Blur pictures in 0..1 and add noise, like the drawings of an imperfect model."""
    count = len(pictures)
    half = F.interpolate(pictures, scale_factor=0.5, mode="bilinear", antialias=True)
    soft = F.interpolate(half, scale_factor=2.0, mode="bilinear")
    mix = torch.rand(count, 1, 1, 1)
    noise = torch.randn_like(pictures) * 0.10 * torch.rand(count, 1, 1, 1)
    return (pictures * (1 - mix) + soft * mix + noise).clamp(0, 1)


def without_subject(pictures: Tensor) -> Tensor:
    """Pictures that show no subject: noise of any grain, with faint artwork below it."""
    count, _, height, width = pictures.shape
    grains = [1, 2, 4, 8, 16]
    noise = torch.empty_like(pictures)
    for i in range(count):
        grain = random.choice(grains)
        small = torch.rand(1, 3, height // grain, width // grain)
        noise[i] = F.interpolate(small, (height, width), mode=random.choice(["nearest", "bicubic"]))
    opacity = torch.rand(count, 1, 1, 1) * 0.3
    return (opacity * pictures + (1 - opacity) * noise).clamp(0, 1)


def train_judge(pool: Pool, steps: int, seed: int = 1, batch_size: int = 64) -> ConvJudge:
    """Train a classifier of style, object and background, each with a class for none."""
    torch.manual_seed(seed)
    random.seed(seed)
    judge = ConvJudge({"style": STYLES, "object": OBJECTS, "background": BACKGROUNDS}, SIZE)
    optimizer = torch.optim.AdamW(judge.parameters(), lr=3e-3, weight_decay=1e-3)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, 3e-3, steps)
    progress = tqdm(range(steps), desc="judge", mininterval=5)
    for step in progress:
        index = torch.randint(len(pool.pictures), (batch_size,))
        pictures, labels = degrade(to_unit(pool.pictures[index])), pool.labels[index].clone()
        negatives = round(NEGATIVES * batch_size)
        pictures[:negatives] = without_subject(pictures[:negatives])
        labels[:negatives] = torch.tensor([len(STYLES), len(OBJECTS), len(BACKGROUNDS)])
        logits = judge(pictures).values()
        loss = sum(F.cross_entropy(logit, labels[:, i]) for i, logit in enumerate(logits))
        assert isinstance(loss, Tensor)
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        optimizer.step()
        schedule.step()
        if step % 50 == 0:
            progress.set_postfix(loss=f"{loss.item():.4f}")
    return judge.eval()


def new_scorer(folder: Path) -> open_clip.CLIP:
    """Create an untrained open_clip model of ``SCORER_CONFIG``, and write the config into
    ``folder``."""
    folder.mkdir(parents=True, exist_ok=True)
    text = json.dumps(SCORER_CONFIG, indent=1) + "\n"
    (folder / "open_clip_config.json").write_text(text, encoding="utf-8")
    model = open_clip.create_model(f"local-dir:{folder.resolve()}", load_weights=False)
    assert isinstance(model, open_clip.CLIP)
    return model


def train_scorer(pool: Pool, folder: Path, steps: int, seed: int = 2, batch_size: int = 96) -> None:
    """Train contrastively like CLIP, and save to ``folder`` in fp16 in open_clip's layout."""
    torch.manual_seed(seed)
    rng = random.Random(seed)
    model = new_scorer(folder).train()
    tokenizer = open_clip.get_tokenizer(f"local-dir:{folder.resolve()}")
    optimizer = torch.optim.AdamW(model.parameters(), lr=2e-3, weight_decay=0.02)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, 2e-3, steps)
    progress = tqdm(range(steps), desc="scorer", mininterval=5)
    for step in progress:
        index = torch.randperm(len(pool.pictures))[: batch_size + 16]
        # Two pictures of one subject in a batch would be each other's negatives.
        subjects = {pool.subject(int(i)): int(i) for i in index}
        batch = list(subjects.values())[:batch_size]
        texts = [fill_caption(rng.choice(FULL_CAPTIONS), pool.subject(i)) for i in batch]
        pictures = degrade(to_unit(pool.pictures[batch])) * 2 - 1
        images = model.encode_image(pictures, normalize=True)
        captions = model.encode_text(tokenizer(texts), normalize=True)
        logits = model.logit_scale.exp().clamp(max=100) * images @ captions.T
        target = torch.arange(len(batch))
        loss = (F.cross_entropy(logits, target) + F.cross_entropy(logits.T, target)) / 2
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        schedule.step()
        if step % 50 == 0:
            progress.set_postfix(loss=f"{loss.item():.4f}")
    state = {name: tensor.half().contiguous() for name, tensor in model.state_dict().items()}
    save_file(state, folder / "open_clip_model.safetensors")
