"""Training of the autoencoders, a few steps each."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from demo.autoencoder import Shape, encode_pool, sharpen_decoder, train_autoencoder
from demo.pictures import make_pool

CPU = torch.device("cpu")


@pytest.mark.parametrize("colours", [False, True])
def test_the_latents_get_unit_variance_and_no_mean(tmp_path: Path, *, colours: bool) -> None:
    pool = make_pool(4, 0, tmp_path, size=32)
    shape = Shape(32, 8, (8, 8, 8, 8), shifted=True)
    vae = train_autoencoder(pool, 2, CPU, shape, batch_size=2, colours=colours)
    latents = encode_pool(vae, pool, CPU)
    assert latents.shape == (4, 8, 4, 4)
    scaled = (latents.float() - vae.config.shift_factor) * vae.config.scaling_factor
    assert scaled.mean().item() == pytest.approx(0, abs=0.01)
    assert scaled.std().item() == pytest.approx(1, abs=0.01)


def test_sharpening_changes_the_decoder_only(tmp_path: Path) -> None:
    pool = make_pool(4, 0, tmp_path, size=32)
    shape = Shape(32, 4, (8, 8, 8), shifted=False)
    vae = train_autoencoder(pool, 2, CPU, shape, batch_size=2)
    assert vae.config.shift_factor is None
    before = {name: value.clone() for name, value in vae.state_dict().items()}
    sharpen_decoder(vae, pool, encode_pool(vae, pool, CPU), 2, CPU, batch_size=2)
    changed = {
        name.split(".")[0]
        for name, value in vae.state_dict().items()
        if (value != before[name]).any()
    }
    assert changed == {"decoder", "post_quant_conv"}
