"""Training of the class-conditional demo model on scikit-learn's digits, and of its classifier."""

from __future__ import annotations

import copy
import json
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from diffusers import DDIMScheduler, UNet2DModel
from torch import Tensor
from tqdm import tqdm

from demo.diffusion import update_average
from demo.precision import mixed_precision
from unlearn_core.judging.judge import ConvJudge

DIGITS = ("zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine")
SIZE = 16  # px; the 8 x 8 originals are enlarged to show the pen strokes better


def digit_pictures() -> tuple[Tensor, Tensor]:
    """The 1,797 pictures, [N, 1, 16, 16] in 0..1, and their labels int64 [N]."""
    from sklearn.datasets import load_digits  # not among the pack's requirements

    data: Any = load_digits()
    pictures = torch.from_numpy(data.images).float().unsqueeze(1) / 16
    enlarged = F.interpolate(pictures, (SIZE, SIZE), mode="bicubic").clamp(0, 1)
    return enlarged, torch.from_numpy(data.target).long()


def augment(pictures: Tensor) -> Tensor:
    """Slightly rotate, scale and shift each picture."""
    count = len(pictures)
    angle, scale = (torch.rand(count) - 0.5) * 0.3, 1 + (torch.rand(count) - 0.5) * 0.16
    theta = torch.zeros(count, 2, 3)
    theta[:, 0, 0] = theta[:, 1, 1] = angle.cos() * scale
    theta[:, 0, 1], theta[:, 1, 0] = -angle.sin() * scale, angle.sin() * scale
    theta[:, :, 2] = (torch.rand(count, 2) - 0.5) * 0.16
    grid = F.affine_grid(theta, list(pictures.shape), align_corners=False)
    return F.grid_sample(pictures, grid, align_corners=False)


def new_unet() -> UNet2DModel:
    return UNet2DModel(
        sample_size=SIZE,
        in_channels=1,
        out_channels=1,
        num_class_embeds=len(DIGITS),
        block_out_channels=(32, 64, 96),
        down_block_types=("DownBlock2D", "DownBlock2D", "AttnDownBlock2D"),
        up_block_types=("AttnUpBlock2D", "UpBlock2D", "UpBlock2D"),
        layers_per_block=1,
        norm_num_groups=8,
        attention_head_dim=32,
    )


def new_scheduler() -> DDIMScheduler:
    return DDIMScheduler(
        num_train_timesteps=1000, beta_schedule="squaredcos_cap_v2", prediction_type="epsilon"
    )


def train_digits(
    pictures: Tensor, labels: Tensor, steps: int, seed: int = 0, batch_size: int = 128
) -> UNet2DModel:
    """Train a model, and return the exponential average of its weights."""
    torch.manual_seed(seed)
    unet = new_unet()
    average = copy.deepcopy(unet).requires_grad_(False).eval()
    optimizer = torch.optim.AdamW(unet.parameters(), lr=2e-3, weight_decay=0.01)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, 2e-3, steps, pct_start=0.1)
    scheduler = new_scheduler()
    progress = tqdm(range(steps), desc="digits", mininterval=5)
    for step in progress:
        index = torch.randint(len(pictures), (batch_size,))
        x_0 = augment(pictures[index]) * 2 - 1
        noise, t = torch.randn_like(x_0), torch.randint(1000, (batch_size,))
        x_t = scheduler.add_noise(x_0, noise, t)  # pyright: ignore[reportArgumentType]
        with mixed_precision(x_0.device):
            output = unet(x_t, t, class_labels=labels[index]).sample
        loss = F.mse_loss(output.float(), noise)
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(unet.parameters(), 1.0)
        optimizer.step()
        schedule.step()
        update_average(average, unet, step)
        if step % 50 == 0:
            progress.set_postfix(loss=f"{loss.item():.4f}")
    return average


def train_digit_judge(pictures: Tensor, labels: Tensor, steps: int, seed: int = 1) -> ConvJudge:
    """Train a classifier of digits, with a class for pictures without any."""
    torch.manual_seed(seed)
    judge = ConvJudge({"class": DIGITS}, SIZE)
    optimizer = torch.optim.AdamW(judge.parameters(), lr=2e-3, weight_decay=1e-3)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, 2e-3, steps)
    for _ in tqdm(range(steps), desc="digit judge", mininterval=5):
        index = torch.randint(len(pictures), (64,))
        batch, target = augment(pictures[index]), labels[index].clone()
        batch = (batch + 0.1 * torch.rand(64, 1, 1, 1) * torch.randn_like(batch)).clamp(0, 1)
        batch[:12], target[:12] = no_digit(batch[:12]), len(DIGITS)
        loss = F.cross_entropy(judge(batch.expand(-1, 3, -1, -1))["class"], target)
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        optimizer.step()
        schedule.step()
    return judge.eval()


def no_digit(pictures: Tensor) -> Tensor:
    """Pictures without a digit: noise, flat grey, and digits with swapped quarters."""
    noise = torch.rand_like(pictures)
    coarse = F.interpolate(noise[..., ::4, ::4], pictures.shape[-2:], mode="bicubic").clamp(0, 1)
    flat = torch.rand(len(pictures), 1, 1, 1).expand_as(pictures)
    swapped = pictures.roll((SIZE // 2, SIZE // 2), (2, 3))
    kind = torch.arange(len(pictures)).view(-1, 1, 1, 1) % 4
    choices = torch.stack([noise, coarse, flat, swapped])
    return choices.gather(0, kind.expand_as(pictures).unsqueeze(0))[0]


def save_digits(unet: UNet2DModel, judge: ConvJudge, folder: Path) -> None:
    """Save a diffusers folder with the class names in ``model_index.json``, as fp16 safetensors."""
    copy.deepcopy(unet).half().save_pretrained(folder / "unet", safe_serialization=True)
    new_scheduler().save_pretrained(folder / "scheduler")
    index = {
        "_class_name": "DDPMPipeline",
        "unet": ["diffusers", "UNet2DModel"],
        "scheduler": ["diffusers", "DDIMScheduler"],
        "id2label": {str(i): name for i, name in enumerate(DIGITS)},
    }
    (folder / "model_index.json").write_text(json.dumps(index, indent=1) + "\n", encoding="utf-8")
    (folder / "evaluation").mkdir(exist_ok=True)
    judge.save(folder / "evaluation")
