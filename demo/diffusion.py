"""Joint training of EmojiCanvas's text encoder and U-Net on cached latents."""

from __future__ import annotations

import copy
import json
import random
import shutil
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from diffusers import AutoencoderKL, DDIMScheduler, StableDiffusionPipeline, UNet2DConditionModel
from torch import Tensor, nn
from tqdm import tqdm
from transformers import CLIPTextConfig, CLIPTextModel, CLIPTokenizer

from demo.pictures import Pool
from demo.precision import mixed_precision
from demo.world import caption
from unlearn_core.models.text import Clip, save_clip

TEXT_WIDTH = 96
EMPTY_CAPTIONS = 0.10  # share trained unconditionally, for classifier-free guidance
SNR_CAP = 5.0  # min-SNR weighting, Hang et al. 2023: less effort on removing the last noise
EMA_DECAY = 0.999


@dataclass(frozen=True)
class Phase:
    """A one-cycle schedule of ``steps`` steps, of which the first ``stop_at`` are run."""

    steps: int
    stop_at: int
    peak_rate: float


# The second phase starts from the average of the first and anneals; both together take an hour on
# two CPU cores.
PHASES = (Phase(4500, 2500, 1e-3), Phase(1000, 1000, 5e-4))


class Denoiser(nn.Module):
    """The two trained parts as one module, so that one optimizer and one average cover both."""

    def __init__(self) -> None:
        super().__init__()
        self.text_encoder = CLIPTextModel(text_config(TEXT_WIDTH))
        self.unet = UNet2DConditionModel(
            sample_size=16,
            in_channels=4,
            out_channels=4,
            block_out_channels=(64, 128, 160),
            down_block_types=("DownBlock2D", "CrossAttnDownBlock2D", "CrossAttnDownBlock2D"),
            up_block_types=("CrossAttnUpBlock2D", "CrossAttnUpBlock2D", "UpBlock2D"),
            layers_per_block=1,
            norm_num_groups=16,
            attention_head_dim=4,
            cross_attention_dim=TEXT_WIDTH,
        )

    def forward(self, latents: Tensor, timesteps: Tensor, tokens: Tensor) -> Tensor:
        """Noise prediction [B, 4, 16, 16]."""
        context = self.text_encoder(tokens).last_hidden_state  # [B, 77, TEXT_WIDTH]
        return self.unet(latents, timesteps, context).sample


def text_config(width: int) -> CLIPTextConfig:
    """The settings of a small CLIP text encoder with embeddings of this width."""
    return CLIPTextConfig(
        vocab_size=49408,
        hidden_size=width,
        intermediate_size=4 * width,
        num_hidden_layers=3,
        num_attention_heads=4,
        max_position_embeddings=77,
        projection_dim=width,
        bos_token_id=49406,
        eos_token_id=49407,
        pad_token_id=49407,
    )


def new_scheduler() -> DDIMScheduler:
    """The schedule of Stable Diffusion 1.x."""
    return DDIMScheduler(
        num_train_timesteps=1000,
        beta_start=0.00085,
        beta_end=0.012,
        beta_schedule="scaled_linear",
        clip_sample=False,
        set_alpha_to_one=False,
        steps_offset=1,
        prediction_type="epsilon",
    )


def caption_tokens(pool: Pool, tokenizer: CLIPTokenizer, seed: int, rounds: int) -> Tensor:
    """Token ids, int32 [rounds, N, 77]: several captions of every picture."""
    rng = random.Random(seed)
    subjects = [pool.subject(i) for i in range(len(pool.labels))]
    return torch.stack(
        [
            tokenizer(
                ["" if rng.random() < EMPTY_CAPTIONS else caption(s, rng) for s in subjects],
                padding="max_length",
                max_length=77,
                return_tensors="pt",
            ).input_ids.to(torch.int32)
            for _ in range(rounds)
        ]
    )


def batches(latents: Tensor, tokens: Tensor, batch_size: int) -> Iterator[tuple[Tensor, Tensor]]:
    """Endless shuffled epochs of (latents, tokens), with a random caption each time."""
    while True:
        for index in torch.randperm(len(latents)).split(batch_size):
            round_ = torch.randint(len(tokens), (len(index),))
            yield latents[index].float(), tokens[round_, index].long()


def train_denoiser(
    pool: Pool,
    latents: Tensor,
    tokenizer: CLIPTokenizer,
    phase: Phase,
    device: torch.device,
    start: Denoiser | None = None,
    seed: int = 0,
    batch_size: int = 40,
) -> Denoiser:
    """Train from scratch or from ``start``, and return the exponential average of the weights.

    ``latents`` are scaled, [N, 4, 16, 16].
    """
    tokens = caption_tokens(pool, tokenizer, seed, rounds=4)
    torch.manual_seed(seed)
    model = Denoiser() if start is None else copy.deepcopy(start).requires_grad_(True).train()
    model.to(device)
    model.unet.to(memory_format=torch.channels_last)  # pyright: ignore[reportCallIssue]
    average = copy.deepcopy(model).requires_grad_(False).eval()
    optimizer = torch.optim.AdamW(model.parameters(), betas=(0.9, 0.99), weight_decay=0.01)
    schedule = torch.optim.lr_scheduler.OneCycleLR(
        optimizer, phase.peak_rate, phase.steps, pct_start=0.08
    )
    alphas = new_scheduler().alphas_cumprod.to(device)
    data = batches(latents, tokens, batch_size)
    progress = tqdm(range(phase.stop_at), desc="diffusion", mininterval=5)
    smooth = 1.0
    for step in progress:
        x_0, ids = (part.to(device) for part in next(data))
        loss, error = noise_losses(model, x_0.to(memory_format=torch.channels_last), ids, alphas)
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        schedule.step()
        update_average(average, model, step)
        if step % 50 == 0:
            smooth = error.mean().item() if step == 0 else 0.7 * smooth + 0.3 * error.mean().item()
            progress.set_postfix(loss=f"{smooth:.4f}")
    return average


def noise_losses(
    model: Denoiser, x_0: Tensor, tokens: Tensor, alphas: Tensor
) -> tuple[Tensor, Tensor]:
    """The weighted loss of a batch, and the squared error of each of its noise predictions, [B]."""
    count, device = len(x_0), x_0.device
    noise = torch.randn_like(x_0)
    # Stratified timesteps: every batch covers the whole schedule, so the loss is less noisy.
    strata = torch.arange(count, device=device) + torch.rand(count, device=device)
    t = (strata / count * 1000).long().clamp(max=999)
    alpha = alphas[t].view(-1, 1, 1, 1)
    x_t = alpha.sqrt() * x_0 + (1 - alpha).sqrt() * noise
    with mixed_precision(device):
        output = model(x_t, t, tokens)
    snr = alphas[t] / (1 - alphas[t])
    weight = snr.clamp(max=SNR_CAP) / snr
    error = (output.float() - noise).pow(2).mean(dim=(1, 2, 3))
    return (weight * error).mean(), error


@torch.no_grad()
def update_average(average: nn.Module, model: nn.Module, step: int) -> None:
    """Update the exponential average of the weights, which is shorter during the first steps."""
    decay = min(EMA_DECAY, (step + 1) / (step + 10))
    torch._foreach_lerp_(list(average.parameters()), list(model.parameters()), 1 - decay)


def save_pipeline(
    model: Denoiser, vae: AutoencoderKL, tokenizer: CLIPTokenizer, folder: Path
) -> None:
    """Save a Stable Diffusion pipeline folder in diffusers' layout, as fp16 safetensors."""
    parts = copy.deepcopy(model).half().cpu()
    kind: Any = StableDiffusionPipeline  # its type hints are too narrow
    pipeline = kind(
        vae=copy.deepcopy(vae).half().cpu(),
        text_encoder=parts.text_encoder,
        tokenizer=tokenizer,
        unet=parts.unet,
        scheduler=new_scheduler(),
        safety_checker=None,
        feature_extractor=None,
        requires_safety_checker=False,
    )
    write_pipeline(pipeline, [Clip(parts.text_encoder, tokenizer)], folder)


def write_pipeline(pipeline: Any, clips: Sequence[Clip], folder: Path) -> None:
    """Save a pipeline and its text encoders so that other programs and older versions read them."""
    pipeline.save_pretrained(folder, safe_serialization=True)
    for clip, suffix in zip(clips, ("", "_2"), strict=False):
        parts = folder / f"text_encoder{suffix}", folder / f"tokenizer{suffix}"
        for part in parts:  # in transformers' layout, which only its newest version reads
            shutil.rmtree(part)
        save_clip(clip, *parts, torch.float16)
    for file in folder.glob("*/config.json"):
        settings = json.loads(file.read_text(encoding="utf-8"))
        settings.pop("_name_or_path", None)  # a path on the training machine
        file.write_text(json.dumps(settings, indent=2) + "\n", encoding="utf-8")
