"""Tiny networks of further architectures of ComfyUI."""

from __future__ import annotations

from typing import Any

import torch

from .tiny_networks import POOLED, WIDTH, Tiny

# isort: split
import comfy.ldm.chroma.model
import comfy.ldm.flux.model
import comfy.ldm.hunyuan_video.model
import comfy.supported_models as supported


def _flux2() -> Any:
    return supported.Flux2(dict(
        image_model="flux2", in_channels=128, out_channels=128, vec_in_dim=None,
        context_in_dim=WIDTH, hidden_size=64, mlp_ratio=3.0, num_heads=2, depth=1,
        depth_single_blocks=1, axes_dim=[8, 8, 8, 8], theta=2000, patch_size=1, qkv_bias=False,
        guidance_embed=True, global_modulation=True, mlp_silu_act=True, ops_bias=False,
        **_newer_flux(),
    ))  # fmt: skip


def _newer_flux() -> dict[str, Any]:
    known = comfy.ldm.flux.model.FluxParams.__dataclass_fields__
    return {"txt_ids_dims": [3]} if "txt_ids_dims" in known else {}


def _chroma() -> Any:
    known = comfy.ldm.chroma.model.ChromaParams.__dataclass_fields__
    newer = {"txt_ids_dims": [], "vec_in_dim": None} if "txt_ids_dims" in known else {}
    return supported.Chroma(dict(
        image_model="chroma", in_channels=64, out_channels=64, context_in_dim=WIDTH,
        hidden_size=64, mlp_ratio=4.0, num_heads=2, depth=2, depth_single_blocks=2,
        axes_dim=[8, 12, 12], theta=10000, patch_size=2, qkv_bias=True, in_dim=64, out_dim=64,
        hidden_dim=64, n_layers=2, **newer,
    ))  # fmt: skip


def _hunyuan_image() -> Any:
    known = comfy.ldm.hunyuan_video.model.HunyuanVideoParams.__dataclass_fields__
    newer = {"meanflow_sum": False} if "meanflow_sum" in known else {}
    return supported.HunyuanImage21(dict(
        image_model="hunyuan_video", in_channels=64, out_channels=64, vec_in_dim=None,
        context_in_dim=WIDTH, hidden_size=64, mlp_ratio=4.0, num_heads=2, depth=2,
        depth_single_blocks=2, axes_dim=[16, 16], theta=256, patch_size=[1, 1], qkv_bias=True,
        guidance_embed=False, byt5=False, meanflow=False, use_cond_type_embedding=False,
        vision_in_dim=None, **newer,
    ))  # fmt: skip


def _aura_flow() -> Any:
    config = supported.AuraFlow(dict(cond_seq_dim=WIDTH, n_layers=3, n_double_layers=2))
    config.unet_config.update(
        in_channels=4, out_channels=4, dim=64, n_heads=2, cond_seq_dim=WIDTH, max_seq=64,
        n_layers=3, n_double_layers=2, patch_size=2,
    )  # fmt: skip
    return config


def _pixart() -> Any:
    return supported.PixArtSigma(dict(
        image_model="pixart_sigma", input_size=8, depth=2, hidden_size=64, num_heads=2,
        in_channels=4, caption_channels=WIDTH, micro_condition=False, pe_interpolation=1,
        model_max_length=16,
    ))  # fmt: skip


def _hi_dream() -> Any:
    return supported.HiDream(dict(
        image_model="hidream", patch_size=2, in_channels=16, out_channels=16, num_layers=1,
        num_single_layers=1, attention_head_dim=32, num_attention_heads=2,
        caption_channels=[WIDTH, WIDTH], text_emb_dim=POOLED, num_routed_experts=2,
        num_activated_experts=1, axes_dims_rope=[8, 12, 12], max_resolution=[16, 16],
        llama_layers=[0, 1],
    ))  # fmt: skip


def _omnigen2() -> Any:
    return supported.Omnigen2(dict(
        image_model="omnigen2", hidden_size=96, num_layers=2, num_refiner_layers=1,
        num_attention_heads=4, num_kv_heads=2, axes_dim_rope=[8, 8, 8], text_feat_dim=WIDTH,
    ))  # fmt: skip


def _cosmos() -> Any:
    return supported.CosmosT2IPredict2(dict(
        image_model="cosmos_predict2", max_img_h=16, max_img_w=16, max_frames=4, in_channels=16,
        out_channels=16, patch_spatial=2, patch_temporal=1, concat_padding_mask=True,
        model_channels=96, num_blocks=2, num_heads=2, crossattn_emb_channels=WIDTH,
        pos_emb_cls="rope3d", pos_emb_learnable=False, pos_emb_interpolation="crop",
        mlp_ratio=4.0, use_adaln_lora=True, adaln_lora_dim=16, extra_per_block_abs_pos_emb=False,
        rope_h_extrapolation_ratio=4.0, rope_w_extrapolation_ratio=4.0,
        rope_t_extrapolation_ratio=1.0, min_fps=1, max_fps=30,
    ))  # fmt: skip


FURTHER = {
    "flux2": Tiny(_flux2, (128, 8, 8)),
    "chroma": Tiny(_chroma),
    "hunyuan-image": Tiny(_hunyuan_image, (64, 8, 8)),
    "auraflow": Tiny(_aura_flow, (4, 8, 8), fixed_length=True),
    "pixart": Tiny(_pixart, (4, 40, 40), fixed_length=True),  # it cannot draw smaller ones
    "hidream": Tiny(
        _hi_dream,
        pooled=True,
        more=lambda n: {"conditioning_llama3": torch.ones(1, 2, n, WIDTH) * 0.1},
    ),
    "omnigen2": Tiny(_omnigen2),
    "cosmos-predict2": Tiny(_cosmos, fixed_length=True),
}
