"""Tiny model folders of the real architectures, small enough to train in milliseconds.

The weights are random but the same on every call; ``save_pretrained`` writes the folders.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from diffusers import (
    AutoencoderKL,
    DDIMScheduler,
    DDPMScheduler,
    DiTPipeline,
    DiTTransformer2DModel,
    FlowMatchEulerDiscreteScheduler,
    FluxPipeline,
    FluxTransformer2DModel,
    SD3Transformer2DModel,
    StableDiffusion3Pipeline,
    StableDiffusionPipeline,
    StableDiffusionXLPipeline,
    UNet2DConditionModel,
    UNet2DModel,
)
from tokenizers import Tokenizer, models, pre_tokenizers, processors
from transformers import (
    CLIPTextConfig,
    CLIPTextModel,
    CLIPTextModelWithProjection,
    PreTrainedTokenizerFast,
    T5Config,
    T5EncoderModel,
)

from unlearn_core.models.text import clip_tokenizer

CLASS_NAMES = ("cat", "dog", "house")
WIDTH = 16  # width of the text embeddings


def tokenize(tokenizer: Any, prompts: Sequence[str]) -> torch.Tensor:
    """Token numbers int64 [B, 77], without syntax, as transformers encodes prompts."""
    return tokenizer(
        list(prompts),
        padding="max_length",
        max_length=tokenizer.model_max_length,
        truncation=True,
        return_tensors="pt",
    ).input_ids


def _build(kind: Any, **options: Any) -> Any:
    """Untyped, because diffusers accepts more than its type annotations allow."""
    return kind(**options)


def _vae() -> AutoencoderKL:
    return _build(
        AutoencoderKL,
        sample_size=16, latent_channels=4, norm_num_groups=4, block_out_channels=(8, 8),
        down_block_types=("DownEncoderBlock2D",) * 2,
        up_block_types=("UpDecoderBlock2D",) * 2,
    )  # fmt: skip


def _text_config() -> CLIPTextConfig:
    return CLIPTextConfig(
        hidden_size=WIDTH, intermediate_size=32, num_attention_heads=2,
        num_hidden_layers=2, projection_dim=WIDTH, eos_token_id=49407,
    )  # fmt: skip


def _scheduler(prediction_type: str = "epsilon") -> DDIMScheduler:
    return _build(
        DDIMScheduler,
        beta_start=0.00085, beta_end=0.012, beta_schedule="scaled_linear",
        clip_sample=False, set_alpha_to_one=False, steps_offset=1,
        prediction_type=prediction_type,
    )  # fmt: skip


def write_stable_diffusion(folder: Path, prediction_type: str = "epsilon") -> Path:
    """A Stable Diffusion with 16 x 16 pixels, 4 x 8 x 8 latents and cross-attention."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        unet = UNet2DConditionModel(
            sample_size=8, in_channels=4, out_channels=4, layers_per_block=1,
            block_out_channels=(8, 16), norm_num_groups=4, attention_head_dim=2,
            cross_attention_dim=WIDTH,
            down_block_types=("CrossAttnDownBlock2D", "DownBlock2D"),
            up_block_types=("UpBlock2D", "CrossAttnUpBlock2D"),
        )  # fmt: skip
        vae = _vae()
        text_encoder = CLIPTextModel(_text_config())
    pipeline = _build(
        StableDiffusionPipeline,
        vae=vae,
        text_encoder=text_encoder,
        tokenizer=clip_tokenizer(),
        unet=unet,
        scheduler=_scheduler(prediction_type),
        safety_checker=None,
        feature_extractor=None,
        requires_safety_checker=False,
    )  # fmt: skip
    pipeline.save_pretrained(folder)
    return folder


def write_stable_diffusion_xl(folder: Path) -> Path:
    """The same as SDXL, with two text encoders, pooled text and sizes."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        unet = _build(
            UNet2DConditionModel,
            sample_size=8, in_channels=4, out_channels=4, layers_per_block=1,
            block_out_channels=(8, 16), norm_num_groups=4, attention_head_dim=(2, 4),
            cross_attention_dim=2 * WIDTH, use_linear_projection=True,
            transformer_layers_per_block=(1, 2), addition_embed_type="text_time",
            addition_time_embed_dim=8, projection_class_embeddings_input_dim=WIDTH + 6 * 8,
            down_block_types=("DownBlock2D", "CrossAttnDownBlock2D"),
            up_block_types=("CrossAttnUpBlock2D", "UpBlock2D"),
        )  # fmt: skip
        vae = _vae()
        first = CLIPTextModel(_text_config())
        second = CLIPTextModelWithProjection(_text_config())
    pipeline = _build(
        StableDiffusionXLPipeline,
        vae=vae,
        text_encoder=first,
        text_encoder_2=second,
        tokenizer=clip_tokenizer(),
        tokenizer_2=clip_tokenizer("!"),
        unet=unet,
        scheduler=_scheduler(),
        force_zeros_for_empty_prompt=False,
    )
    pipeline.save_pretrained(folder)
    return folder


def write_stable_diffusion_3(folder: Path, *, t5: bool) -> Path:
    """A Stable Diffusion 3 with or without its third text encoder."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        transformer = _build(
            SD3Transformer2DModel,
            sample_size=8, patch_size=2, in_channels=4, out_channels=4, num_layers=2,
            attention_head_dim=8, num_attention_heads=2, joint_attention_dim=2 * WIDTH + 8,
            caption_projection_dim=16, pooled_projection_dim=2 * WIDTH, pos_embed_max_size=16,
            qk_norm="rms_norm",
        )  # fmt: skip
        vae = _flow_vae()
        first, second = (CLIPTextModelWithProjection(_text_config()) for _ in range(2))
        third = _t5(2 * WIDTH + 8) if t5 else None
    _build(
        StableDiffusion3Pipeline,
        transformer=transformer,
        vae=vae,
        scheduler=FlowMatchEulerDiscreteScheduler(shift=3.0),
        text_encoder=first,
        text_encoder_2=second,
        text_encoder_3=third,
        tokenizer=clip_tokenizer(),
        tokenizer_2=clip_tokenizer("!"),
        tokenizer_3=_t5_tokenizer() if t5 else None,
    ).save_pretrained(folder)
    return folder


def write_flux(folder: Path, *, guidance: bool = True) -> Path:
    """A Flux.1, with an input for distilled guidance (as "dev") or without (as "schnell")."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        transformer = _build(
            FluxTransformer2DModel,
            in_channels=16, num_layers=1, num_single_layers=2, attention_head_dim=8,
            num_attention_heads=2, joint_attention_dim=WIDTH, pooled_projection_dim=WIDTH,
            guidance_embeds=guidance, axes_dims_rope=(2, 2, 4),
        )  # fmt: skip
        vae = _flow_vae()
        first, second = CLIPTextModel(_text_config()), _t5(WIDTH)
    scheduler = _build(FlowMatchEulerDiscreteScheduler, shift=3.0, use_dynamic_shifting=guidance)
    _build(
        FluxPipeline,
        transformer=transformer,
        vae=vae,
        scheduler=scheduler,
        text_encoder=first,
        text_encoder_2=second,
        tokenizer=clip_tokenizer(),
        tokenizer_2=_t5_tokenizer(),
    ).save_pretrained(folder)
    return folder


def _flow_vae() -> AutoencoderKL:
    """Latents with a mean of their own."""
    vae = _vae()
    vae.register_to_config(scaling_factor=1.5, shift_factor=0.06)
    return vae


def _t5(width: int) -> T5EncoderModel:
    config = T5Config(
        vocab_size=64, d_model=width, d_kv=8, d_ff=32, num_layers=2, num_heads=2
    )  # fmt: skip
    return T5EncoderModel(config)


def _t5_tokenizer() -> PreTrainedTokenizerFast:
    """T5's kind of tokenizer (Unigram) with the letters as its vocabulary."""
    pieces = ["<pad>", "</s>", "<unk>", "\u2581", *"abcdefghijklmnopqrstuvwxyz,."]
    tokenizer = Tokenizer(models.Unigram([(piece, -1.0) for piece in pieces], unk_id=2))
    tokenizer.pre_tokenizer = pre_tokenizers.Metaspace()
    tokenizer.post_processor = processors.TemplateProcessing(
        single="$A </s>", special_tokens=[("</s>", 1)]
    )
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, eos_token="</s>", unk_token="<unk>", pad_token="<pad>"
    )


def write_dit(folder: Path, scheduler: Any = None) -> Path:
    """A diffusion transformer over ``CLASS_NAMES``, on the latents of the same autoencoder."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        transformer = DiTTransformer2DModel(
            num_attention_heads=2, attention_head_dim=8, in_channels=4, out_channels=8,
            num_layers=2, norm_num_groups=4, sample_size=8, patch_size=2,
            num_embeds_ada_norm=len(CLASS_NAMES),
        )  # fmt: skip
        vae = _vae()
    _build(
        DiTPipeline, transformer=transformer, vae=vae, scheduler=scheduler or _scheduler()
    ).save_pretrained(folder)  # fmt: skip
    # The published models name their classes here; ``save_pretrained`` does not write them.
    index = folder / "model_index.json"
    content = json.loads(index.read_text(encoding="utf-8"))
    content["id2label"] = {i: f"{name}, {name} thing" for i, name in enumerate(CLASS_NAMES)}
    index.write_text(json.dumps(content), encoding="utf-8")
    return folder


def learned_variance() -> DDPMScheduler:
    """The scheduler of a model that also predicts its variance (Nichol and Dhariwal 2021)."""
    return _build(DDPMScheduler, variance_type="learned_range", clip_sample=False)


def write_class_conditional(
    folder: Path,
    channels: int = 3,
    prediction_type: str = "epsilon",
    scheduler: Any = None,
    predicted: int | None = None,
) -> Path:
    """Class-conditional diffusion with 8 x 8 pixels over ``CLASS_NAMES``.

    Args:
        predicted: output channels of the denoiser; as many as in the pictures by default.
    """
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        unet = UNet2DModel(
            sample_size=8, in_channels=channels, out_channels=predicted or channels,
            layers_per_block=1, block_out_channels=(8, 16), norm_num_groups=4, attention_head_dim=4,
            down_block_types=("DownBlock2D", "AttnDownBlock2D"),
            up_block_types=("AttnUpBlock2D", "UpBlock2D"), num_class_embeds=len(CLASS_NAMES),
        )  # fmt: skip
    unet.save_pretrained(folder / "unet")
    scheduler = scheduler or _build(DDPMScheduler, prediction_type=prediction_type)
    scheduler.save_pretrained(folder / "scheduler")
    index = {
        "_class_name": "ClassConditionalPipeline",
        "unet": ["diffusers", "UNet2DModel"],
        "scheduler": ["diffusers", "DDPMScheduler"],
        "id2label": dict(enumerate(CLASS_NAMES)),
    }
    (folder / "model_index.json").write_text(json.dumps(index), encoding="utf-8")
    return folder


def write_language_model(folder: Path, text: str = "") -> Path:
    """A causal language model with characters as tokens, trained to repeat ``text``."""
    from tokenizers import Tokenizer, decoders, pre_tokenizers
    from tokenizers.models import WordLevel
    from transformers import GPT2Config, GPT2LMHeadModel, PreTrainedTokenizerFast

    letters = {c: i for i, c in enumerate("\0\n" + "".join(map(chr, range(32, 127))))}
    tokenizer = Tokenizer(WordLevel(letters, unk_token="\0"))
    tokenizer.pre_tokenizer = pre_tokenizers.Split("", "isolated")
    tokenizer.decoder = decoders.Fuse()
    fast = PreTrainedTokenizerFast(tokenizer_object=tokenizer, eos_token="\0", unk_token="\0")
    torch.manual_seed(0)
    config = GPT2Config(
        vocab_size=len(letters), n_positions=256, n_embd=48, n_layer=1, n_head=2,
        bos_token_id=0, eos_token_id=0, resid_pdrop=0.0, embd_pdrop=0.0, attn_pdrop=0.0,
    )  # fmt: skip
    model = GPT2LMHeadModel(config)
    tokens = torch.tensor([letters[c] for c in text])
    optimizer = torch.optim.Adam(model.parameters(), 3e-3)
    generator = torch.Generator().manual_seed(0)
    for _ in range(250 if text else 0):
        start = torch.randint(len(tokens) - 128, (8,), generator=generator)
        batch = torch.stack([tokens[s : s + 128] for s in start])
        loss = model(batch, labels=batch).loss
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    fast.save_pretrained(folder)
    model.save_pretrained(folder)
    return folder
