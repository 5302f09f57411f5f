"""Training of the KL autoencoders: pictures to latents and back."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from diffusers import AutoencoderKL
from torch import Tensor, nn
from tqdm import tqdm

from demo.artwork import SIZE
from demo.pictures import Pool, to_unit
from demo.precision import mixed_precision

KL_WEIGHT = 1e-4

# Models are Any here, because diffusers' type hints are too narrow. Their memory layout is the
# default, because channels-last makes the backward pass of group norm slow on a CPU.


@dataclass(frozen=True)
class Shape:
    """Size and widths of an autoencoder; each width but the last halves the resolution.

    Attributes:
        size: edge of a picture, px.
        shifted: whether the latents' mean is subtracted, too, as in Stable Diffusion 3.
    """

    size: int
    latent_channels: int
    widths: tuple[int, ...]
    shifted: bool


EMOJI_SHAPE = Shape(SIZE, 4, (24, 48, 64), shifted=False)  # latents [4, 16, 16]


def new_autoencoder(shape: Shape) -> Any:
    kind: Any = AutoencoderKL
    return kind(
        sample_size=shape.size,
        latent_channels=shape.latent_channels,
        block_out_channels=shape.widths,
        down_block_types=("DownEncoderBlock2D",) * len(shape.widths),
        up_block_types=("UpDecoderBlock2D",) * len(shape.widths),
        layers_per_block=1,
        norm_num_groups=8,
        mid_block_add_attention=False,
    )


def reconstruction_loss(output: Tensor, target: Tensor) -> Tensor:
    """L1 loss on the picture and on its blurred version, which preserves the exact tint of flat
    backgrounds."""
    low = F.avg_pool2d(output, 8) - F.avg_pool2d(target, 8)
    return (output - target).abs().mean() + low.abs().mean()


def train_autoencoder(
    pool: Pool,
    steps: int,
    device: torch.device,
    shape: Shape = EMOJI_SHAPE,
    seed: int = 0,
    batch_size: int = 24,
    start: Any = None,
    colours: bool = False,
) -> Any:
    """Train from scratch or continue from ``start``; ``scaling_factor`` gives the latents unit
    variance.

    With ``colours``, the local colour must be a linear function of the latent, so that it reaches
    the encoder without a detour through the decoder.
    """
    torch.manual_seed(seed)
    vae = (new_autoencoder(shape) if start is None else start).to(device).train()
    colour = nn.Conv2d(shape.latent_channels, 3, 1).to(device)
    parameters = [*vae.parameters(), *(colour.parameters() if colours else ())]
    optimizer = torch.optim.AdamW(parameters, lr=2e-3, weight_decay=1e-4)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, 2e-3, steps, pct_start=0.15)
    progress = tqdm(range(steps), desc="autoencoder", mininterval=5)
    for step in progress:
        index = torch.randint(len(pool.pictures), (batch_size,))
        pictures = to_unit(pool.pictures[index]).to(device) * 2 - 1
        with mixed_precision(device):
            posterior = vae.encode(pictures).latent_dist
            output = vae.decode(posterior.sample()).sample
        kl = posterior.kl().mean() / posterior.mean[0].numel()
        loss = reconstruction_loss(output.float(), pictures) + KL_WEIGHT * kl
        if colours:
            mean = posterior.mean.float()
            target = F.adaptive_avg_pool2d(pictures, mean.shape[-2:])
            loss = loss + (colour(mean) - target).abs().mean()
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(parameters, 1.0)
        optimizer.step()
        schedule.step()
        if step % 50 == 0:
            progress.set_postfix(loss=f"{loss.item():.4f}", kl=f"{kl.item():.2f}")
    vae.eval()
    latents = encode_pool(vae, Pool(pool.pictures[:2000], pool.labels[:2000]), device)
    vae.register_to_config(scaling_factor=round(1 / latents.float().std().item(), 5))
    if shape.shifted:
        vae.register_to_config(shift_factor=round(latents.float().mean().item(), 5))
    return vae


@torch.no_grad()
def encode_pool(vae: Any, pool: Pool, device: torch.device) -> Tensor:
    """Unscaled latent means of the whole pool, fp16 [N, C, h, w]."""
    latents = []
    for chunk in tqdm(pool.pictures.split(64), desc="encoding", mininterval=5):
        pictures = to_unit(chunk).to(device) * 2 - 1
        with mixed_precision(device):
            mean = vae.encode(pictures).latent_dist.mean
        latents.append(mean.half().cpu())
    return torch.cat(latents)


def sharpen_decoder(
    vae: Any,
    pool: Pool,
    latents: Tensor,
    steps: int,
    device: torch.device,
    seed: int = 1,
    batch_size: int = 16,
    weights: Tensor | None = None,
) -> None:
    """Continue training the decoder only; ``latents`` are unscaled, [N, C, h, w], and ``weights``
    [N] are the pictures' relative frequencies, by default equal.

    The denoiser is trained on latent means, and its own latents are never exact, so the decoder is
    trained on means with a little noise. The loss includes edges, because line art depends on them.
    """
    torch.manual_seed(seed)
    decoder = [*vae.decoder.parameters(), *vae.post_quant_conv.parameters()]
    vae.to(device).train()
    optimizer = torch.optim.AdamW(decoder, lr=1.5e-3, weight_decay=1e-4)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, 1.5e-3, steps, pct_start=0.1)
    spread = latents[:2000].float().std()
    weights = torch.ones(len(latents)) if weights is None else weights
    progress = tqdm(range(steps), desc="decoder", mininterval=5)
    for step in progress:
        index = torch.multinomial(weights, batch_size)
        target = to_unit(pool.pictures[index]).to(device) * 2 - 1
        z = latents[index].float().to(device)
        z = z + 0.03 * spread * torch.randn_like(z)
        with mixed_precision(device):
            output = vae.decode(z).sample.float()
        loss = reconstruction_loss(output, target) + edge_loss(output, target)
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(decoder, 1.0)
        optimizer.step()
        schedule.step()
        if step % 50 == 0:
            progress.set_postfix(loss=f"{loss.item():.4f}")
    vae.eval()


def edge_loss(output: Tensor, target: Tensor) -> Tensor:
    """L1 loss on the differences of neighbouring pixels, horizontal and vertical."""
    horizontal = (output.diff(dim=3) - target.diff(dim=3)).abs().mean()
    return horizontal + (output.diff(dim=2) - target.diff(dim=2)).abs().mean()
