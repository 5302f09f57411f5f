"""ComfyUI's side: its own code writes a checkpoint of random weights, loads our files, and computes
predictions. It runs in ComfyUI's folder in a separate process, which reads one JSON command per
line and answers each with a line when it is done:

["make", FAMILY, FILE, SEED]
["predict", {checkpoint, clips?, lora?, strength?, vae?, out}]
"""

from __future__ import annotations

import gc
import json
import math
import os
import sys
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path.cwd()))
sys.argv = [sys.argv[0], "--cpu"]
answers = os.fdopen(os.dup(1), "w")
os.dup2(2, 1)  # other output must not be mixed with the answers

# ruff: noqa: E402
import comfy.options

comfy.options.enable_args_parsing()
import comfy.ldm.models.autoencoder
import comfy.model_management
import comfy.ops
import comfy.sd
import comfy.utils
import torch
from comfy.ldm.modules.diffusionmodules.openaimodel import UNetModel
from safetensors.torch import save_file

import nodes

PROMPTS = ["a cat by Vincent van Gogh, oil on canvas, naïve", ""]
TIMESTEP = 500
EDGE = 8  # of latents

COMMON: dict[str, Any] = {
    "image_size": 32, "in_channels": 4, "out_channels": 4, "model_channels": 320,
    "num_res_blocks": [2, 2, 2, 2], "use_spatial_transformer": True, "legacy": False,
}  # fmt: skip
UNETS: dict[str, dict[str, Any]] = {
    "sd1": {
        "channel_mult": [1, 2, 4, 4], "num_heads": 8, "num_head_channels": -1, "context_dim": 768,
        "transformer_depth": [1, 1, 1, 1, 1, 1, 0, 0], "transformer_depth_middle": 1,
        "transformer_depth_output": [1] * 9 + [0] * 3,
    },
    # Narrower than the real ones: 2.x has the multipliers 1, 2, 4, 4, and XL has 1, 2, 4.
    "sd2-v": {
        "channel_mult": [1, 2, 2, 2], "num_heads": -1, "num_head_channels": 64,
        "context_dim": 1024, "use_linear_in_transformer": True,
        "transformer_depth": [1, 1, 1, 1, 1, 1, 0, 0], "transformer_depth_middle": 1,
        "transformer_depth_output": [1] * 9 + [0] * 3,
    },
    "sdxl": {
        "channel_mult": [1, 1, 1], "num_heads": -1, "num_head_channels": 64,
        "context_dim": 2048, "use_linear_in_transformer": True, "num_res_blocks": [2, 2, 2],
        "transformer_depth": [0, 0, 2, 2, 10, 10], "transformer_depth_middle": 10,
        "transformer_depth_output": [0, 0, 0, 2, 2, 2, 10, 10, 10],
        "num_classes": "sequential", "adm_in_channels": 2816,
    },
}  # fmt: skip
UNETS["sd1-ema"] = {**UNETS["sd1"], "channel_mult": [1, 1, 1, 1]}
UNETS["sdxl-v"] = UNETS["sdxl"]
UNETS["sdxl-full"] = {**UNETS["sdxl"], "channel_mult": [1, 2, 4]}
VAE = {
    "double_z": True, "z_channels": 4, "resolution": 256, "in_channels": 3, "out_ch": 3,
    "ch": 128, "ch_mult": [1, 2, 4, 4], "num_res_blocks": 2, "attn_resolutions": [],
    "dropout": 0.0,
}  # fmt: skip


def random_weights(shape: tuple[int, ...], name: str, generator: torch.Generator) -> torch.Tensor:
    """Random non-zero weights for which activations have about unit variance."""
    values = torch.randn(shape, generator=generator)
    if len(shape) < 2:
        return 0.05 * values + (1.0 if name.endswith("weight") else 0.0)
    if "embedding" in name:
        return 0.02 * values
    return values / math.sqrt(math.prod(shape[1:]))


def clip_l(prefix: str) -> dict[str, tuple[int, ...]]:
    shapes: dict[str, tuple[int, ...]] = {
        "embeddings.token_embedding.weight": (49408, 768),
        "embeddings.position_embedding.weight": (77, 768),
        "final_layer_norm.weight": (768,),
        "final_layer_norm.bias": (768,),
    }
    for i in range(12):
        for part in ("q_proj", "k_proj", "v_proj", "out_proj"):
            shapes[f"encoder.layers.{i}.self_attn.{part}.weight"] = (768, 768)
            shapes[f"encoder.layers.{i}.self_attn.{part}.bias"] = (768,)
        for part, shape in (("fc1", (3072, 768)), ("fc2", (768, 3072))):
            shapes[f"encoder.layers.{i}.mlp.{part}.weight"] = shape
            shapes[f"encoder.layers.{i}.mlp.{part}.bias"] = shape[:1]
        for part in ("layer_norm1", "layer_norm2"):
            shapes[f"encoder.layers.{i}.{part}.weight"] = (768,)
            shapes[f"encoder.layers.{i}.{part}.bias"] = (768,)
    return {f"{prefix}transformer.text_model.{name}": shape for name, shape in shapes.items()}


def open_clip(prefix: str, width: int, layers: int) -> dict[str, tuple[int, ...]]:
    shapes: dict[str, tuple[int, ...]] = {
        "token_embedding.weight": (49408, width),
        "positional_embedding": (77, width),
        "text_projection": (width, width),
        "logit_scale": (),
        "ln_final.weight": (width,),
        "ln_final.bias": (width,),
    }
    for i in range(layers):
        block = f"transformer.resblocks.{i}"
        shapes[f"{block}.attn.in_proj_weight"] = (3 * width, width)
        shapes[f"{block}.attn.in_proj_bias"] = (3 * width,)
        shapes[f"{block}.attn.out_proj.weight"] = (width, width)
        shapes[f"{block}.attn.out_proj.bias"] = (width,)
        for part, shape in (("c_fc", (4 * width, width)), ("c_proj", (width, 4 * width))):
            shapes[f"{block}.mlp.{part}.weight"] = shape
            shapes[f"{block}.mlp.{part}.bias"] = shape[:1]
        for part in ("ln_1", "ln_2"):
            shapes[f"{block}.{part}.weight"] = (width,)
            shapes[f"{block}.{part}.bias"] = (width,)
    return {f"{prefix}model.{name}": shape for name, shape in shapes.items()}


# The others are fp16, like most files.
STORED = {"sd2-v": torch.bfloat16, "sd1-ema": torch.float32}


def make(family: str, file: str, seed: int) -> None:
    """Write a checkpoint in the original layout; key names and shapes are from ComfyUI's modules
    (for text encoders, from the original releases)."""
    dtype = STORED.get(family, torch.float16)
    with torch.device("meta"):
        unet = UNetModel(**{**COMMON, **UNETS[family]}, operations=comfy.ops.disable_weight_init)
        vae = comfy.ldm.models.autoencoder.AutoencoderKL(ddconfig=VAE, embed_dim=4)
    shapes = {f"model.diffusion_model.{k}": tuple(v.shape) for k, v in unet.state_dict().items()}
    shapes |= {f"first_stage_model.{k}": tuple(v.shape) for k, v in vae.state_dict().items()}
    if family.startswith("sd1"):
        shapes |= clip_l("cond_stage_model.")
    elif family.startswith("sd2"):
        shapes |= open_clip("cond_stage_model.", 1024, 24)
    else:
        shapes |= clip_l("conditioner.embedders.0.")
        shapes |= open_clip("conditioner.embedders.1.", 1280, 32)
    generator = torch.Generator().manual_seed(seed)
    # Values that fp16 can represent, because ComfyUI converts text encoders to fp16.
    tensors = {
        name: random_weights(shape, name, generator).half().to(dtype)
        for name, shape in shapes.items()
    }
    if family == "sd2-v":  # programs detect a 2.x model's prediction type by this deviation
        detected = "model.diffusion_model.output_blocks.11.1.transformer_blocks.0.norm1.bias"
        tensors[detected] = tensors[detected] * 5
    if family == "sdxl-v":  # as NoobAI-XL v-pred: keys without values
        tensors |= {"v_pred": torch.zeros(0), "ztsnr": torch.zeros(0)}
    if family == "sd1-ema":
        for name in [n for n in tensors if n.startswith("model.")]:
            flat = "model_ema." + name.removeprefix("model.").replace(".", "")
            tensors[flat] = tensors[name].float().clone()
    save_file(tensors, file, metadata={"modelspec.author": "somebody", "format": "pt"})


@torch.inference_mode()
def predict(job: dict[str, Any]) -> None:
    """Compute with the stock loaders' model: encoded prompts, an estimate of x_0, a decoded and an
    encoded picture."""
    loaded: tuple[Any, ...] = comfy.sd.load_checkpoint_guess_config(
        job["checkpoint"], output_vae=True, output_clip=True
    )
    model, clip, vae = loaded[:3]
    if "clips" in job:
        clip = comfy.sd.load_clip(job["clips"])
    if "vae" in job:
        vae = comfy.sd.VAE(sd=comfy.utils.load_torch_file(job["vae"]))
    if "lora" in job:
        lora = comfy.utils.load_torch_file(job["lora"], safe_load=True)
        patched: tuple[Any, ...] = comfy.sd.load_lora_for_models(
            model, clip, lora, job["strength"], 0.0
        )
        model, clip = patched
    encoder: Any = getattr(nodes, "CLIPTextEncode")()  # noqa: B009 - pyright sees our nodes
    encoded = [encoder.encode(clip, prompt)[0][0] for prompt in PROMPTS]
    context = torch.cat([values for values, _ in encoded])
    generator = torch.Generator().manual_seed(7)
    latents = torch.randn(2, 4, EDGE, EDGE, generator=generator)

    model.patch_model()
    inner = model.model
    sampling = inner.model_sampling
    sigma = sampling.sigmas[TIMESTEP].expand(2)
    conditions: dict[str, Any] = {}
    if inner.adm_channels:
        pooled = torch.cat([extra["pooled_output"] for _, extra in encoded])
        conditions["y"] = inner.encode_adm(
            pooled_output=pooled, device="cpu", width=8 * EDGE, height=8 * EDGE
        )
    # In our convention x_t is smaller than ComfyUI's by a factor of sqrt(1 + sigma^2).
    x = latents * (1 + sigma[0] ** 2) ** 0.5
    estimate = inner.apply_model(x, sigma, c_crossattn=context, **conditions)
    pixels = vae.decode(latents)  # [2, H, W, 3] in 0..1
    again = vae.encode(torch.rand(1, 8 * EDGE, 8 * EDGE, 3, generator=generator))
    result = {"context": context, "estimate": estimate, "pixels": pixels, "latents": again}
    save_file({k: v.float().contiguous().clone() for k, v in result.items()}, job["out"])


COMMANDS = {"make": make, "predict": predict}


def main() -> None:
    for line in sys.stdin:
        name, *arguments = json.loads(line)
        COMMANDS[name](*arguments)
        comfy.model_management.unload_all_models()
        gc.collect()  # the next model may be as large
        print("done", file=answers, flush=True)


if __name__ == "__main__":
    main()
