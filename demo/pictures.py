"""The pool of training pictures, drawn once and stored in the build folder."""

from __future__ import annotations

import random
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor
from tqdm import tqdm

from demo.artwork import SIZE, draw
from demo.world import BACKGROUNDS, OBJECTS, STYLES, Subject, random_subject


@dataclass(frozen=True)
class Pool:
    """``pictures`` uint8 [N, 3, H, W] and their subjects; ``labels`` int64 [N, 3] index the
    vocabulary as (style, object, background)."""

    pictures: Tensor
    labels: Tensor

    def subject(self, index: int) -> Subject:
        style, object_, background = self.labels[index].tolist()
        return Subject(STYLES[style], OBJECTS[object_], BACKGROUNDS[background])


def label_of(subject: Subject) -> tuple[int, int, int]:
    return (
        STYLES.index(subject.style),
        OBJECTS.index(subject.object),
        BACKGROUNDS.index(subject.background),
    )


def make_pool(count: int, seed: int, folder: Path, size: int = SIZE) -> Pool:
    """Draw ``count`` pictures of random subjects, ``size`` px wide, or read those of an earlier
    call."""
    file = folder / f"pool-{count}-{seed}-{size}px.pt"
    if file.exists():
        saved = torch.load(file, weights_only=True, mmap=True)
        return Pool(saved["pictures"], saved["labels"])
    rng = random.Random(seed)
    pictures = np.empty((count, size, size, 3), np.uint8)
    labels = torch.empty(count, 3, dtype=torch.long)
    for i in tqdm(range(count), desc="drawing training pictures", mininterval=2):
        subject = random_subject(rng)
        pictures[i] = draw(subject, rng, size)
        labels[i] = torch.tensor(label_of(subject))
    pool = Pool(torch.from_numpy(pictures).permute(0, 3, 1, 2).contiguous(), labels)
    torch.save({"pictures": pool.pictures, "labels": pool.labels}, file)
    return pool


def to_unit(pictures: Tensor) -> Tensor:
    """Convert uint8 to float in 0..1."""
    return pictures.float() / 255
