"""ComfyUI's CLIP from small text encoders of transformers."""

from __future__ import annotations

from typing import Any

import comfy.sd
import torch
from comfy.sd1_clip import SD1ClipModel, SD1Tokenizer
from comfy.sdxl_clip import SDXLClipModel, SDXLTokenizer
from comfy.supported_models_base import ClipTarget
from torch import Tensor

Encoder = tuple[dict[str, Any], dict[str, Tensor]]  # settings and weights


def build_clip(encoder: Encoder) -> comfy.sd.CLIP:
    """Stable Diffusion 1's kind: the last hidden state of one encoder."""
    return _build(ClipTarget(SD1Tokenizer, SD1ClipModel), clip_l=encoder)


class _TwoClips(SDXLClipModel):
    """Concatenates the pooled embeddings of both encoders, too; SDXL uses only the second's."""

    def encode_token_weights(self, token_weight_pairs: dict[str, Any]) -> tuple[Tensor, Tensor]:
        encoders = {"l": self.clip_l, "g": self.clip_g}
        outputs = [
            encoder.encode_token_weights(token_weight_pairs[name])
            for name, encoder in encoders.items()
        ]
        length = min(embeddings.shape[1] for embeddings, _ in outputs)
        return (
            torch.cat([embeddings[:, :length] for embeddings, _ in outputs], -1),
            torch.cat([pooled for _, pooled in outputs], -1),
        )


def build_two_clips(first: Encoder, second: Encoder) -> comfy.sd.CLIP:
    """Stable Diffusion 3's kind, without T5 and the padding to its width."""
    return _build(ClipTarget(SDXLTokenizer, _TwoClips), clip_l=first, clip_g=second)


def _build(target: ClipTarget, **encoders: Encoder) -> comfy.sd.CLIP:
    """Build the CLIP from its encoders by their names in ComfyUI."""
    all_weights: dict[str, Tensor] = {}
    for name, (settings, weights) in encoders.items():
        all_weights |= {f"{name}.transformer.{key}": value for key, value in weights.items()}
        # ComfyUI's encoders always have these two, although SD 1 uses neither.
        all_weights.setdefault(
            f"{name}.transformer.text_projection.weight", torch.eye(settings["hidden_size"])
        )
        all_weights[f"{name}.logit_scale"] = torch.tensor(4.6055)
    sizes = {f"{name}_model_config": settings for name, (settings, _) in encoders.items()}
    clip = comfy.sd.CLIP(target, model_options=sizes)
    clip.cond_stage_model.load_state_dict(all_weights)
    return clip
