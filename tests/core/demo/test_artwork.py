"""Training pictures of EmojiCanvas in both sizes."""

from __future__ import annotations

import random
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from demo.artwork import draw
from demo.pictures import make_pool
from demo.world import Subject


@pytest.mark.parametrize("style", ["noto", "ink", "pixel"])
def test_a_larger_picture_shows_the_same(style: str) -> None:
    subject = Subject(style, "cat", "pink")
    small = draw(subject, random.Random(3))
    assert small.shape == (64, 64, 3)
    np.testing.assert_array_equal(small, draw(subject, random.Random(3), size=64))
    large = draw(subject, random.Random(3), size=128)
    assert large.shape == (128, 128, 3)
    reduced = np.asarray(Image.fromarray(large).resize((64, 64), Image.Resampling.LANCZOS))
    assert np.abs(reduced.astype(int) - small).mean() < 2


def test_pools_of_two_sizes_are_stored_apart(tmp_path: Path) -> None:
    small, large = (make_pool(3, 0, tmp_path, size) for size in (64, 128))
    assert small.pictures.shape == (3, 3, 64, 64)
    assert large.pictures.shape == (3, 3, 128, 128)
    assert torch.equal(small.labels, large.labels)
    assert torch.equal(make_pool(3, 0, tmp_path, 128).pictures, large.pictures)
