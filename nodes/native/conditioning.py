"""Encoded prompts of ComfyUI's text encoders, and batches of them for the network."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import comfy.samplers
import folder_paths
import torch
from comfy.model_base import BaseModel
from torch import Tensor

from ...unlearn_core.models.errors import UnsupportedError
from ...unlearn_core.models.prompt_syntax import embeddings
from ...unlearn_core.models.protocol import POOLED, TOKENS, Conditioning


@dataclass(frozen=True, eq=False)
class Row:
    """One encoded prompt: an entry of ComfyUI's CONDITIONING.

    Attributes:
        tokens: the text tokens [1, L, D].
        extras: pooled text, attention mask and whatever else the encoder returns.
    """

    tokens: Tensor
    extras: Mapping[str, Any]

    def to(self, device: torch.device | str) -> Row:
        return Row(self.tokens.to(device), _moved(dict(self.extras), device))

    def as_conditioning(self) -> list[list[Any]]:
        """In the form of ComfyUI's nodes."""
        return [[self.tokens, dict(self.extras)]]


def _moved(value: Any, device: torch.device | str) -> Any:
    if isinstance(value, Tensor):
        return value.to(device)
    if isinstance(value, dict):
        return {name: _moved(part, device) for name, part in value.items()}
    if isinstance(value, list):
        return [_moved(part, device) for part in value]
    return value


@dataclass(frozen=True, eq=False)
class NativeConditioning(Conditioning):
    """Encoded prompts as rows, because their lengths and extras differ."""

    rows: tuple[Row, ...]

    def __len__(self) -> int:
        return len(self.rows)

    def __getitem__(self, index: Tensor | slice | list[int]) -> NativeConditioning:
        if isinstance(index, slice):
            return NativeConditioning(self.rows[index])
        places = torch.arange(len(self))[index] if isinstance(index, Tensor) else index
        return NativeConditioning(tuple(self.rows[int(place)] for place in places))

    def to(self, device: torch.device | str) -> NativeConditioning:
        return NativeConditioning(tuple(row.to(device) for row in self.rows))

    @classmethod
    def joined(cls, parts: Sequence[Any]) -> NativeConditioning:
        return cls(tuple(row for part in parts for row in part.rows))

    def text_inputs(self) -> dict[str, Sequence[Tensor]]:
        inputs: dict[str, Sequence[Tensor]] = {TOKENS: [row.tokens[0] for row in self.rows]}
        pooled = [row.extras.get("pooled_output") for row in self.rows]
        if all(isinstance(value, Tensor) for value in pooled):
            inputs[POOLED] = [value[:1] for value in pooled if value is not None]
        return inputs


def has_t5(clip: Any) -> bool:
    """Whether T5 is one of the text encoders."""
    return getattr(getattr(clip, "cond_stage_model", None), "t5xxl", None) is not None


def check(prompts: Sequence[str]) -> None:
    """Check that the prompts' embeddings exist: ComfyUI only logs a missing one and omits it.

    Raises:
        UnsupportedError: names the first that does not exist.
    """
    names = {name for prompt in prompts for name in embeddings(prompt)}
    files = {Path(file) for file in folder_paths.get_filename_list("embeddings")} if names else ()
    known = {form.as_posix() for file in files for form in (file, file.with_suffix(""))}
    for name in sorted(names):
        if not known & {name, name.strip(",")}:
            raise UnsupportedError(
                f"prompts: there is no embedding {name.strip(',')!r} in ComfyUI's "
                "models/embeddings; add its file, or remove it from the prompts"
            )


def encode(clip: Any, prompts: Sequence[str]) -> NativeConditioning:
    """Encode prompts one by one, to the CPU, just as CLIPTextEncode does.

    Raises:
        UnsupportedError: the encoder depends on the noise level.
    """
    rows = []
    for prompt in prompts:
        with torch.inference_mode():  # like ComfyUI's nodes: weights may be inference tensors
            entries = clip.encode_from_tokens_scheduled(clip.tokenize(prompt))
        if len(entries) != 1 or "hooks" in entries[0][1]:
            raise UnsupportedError(
                "clip must encode a prompt alike at all steps, got one with hooks; link the CLIP "
                "from before the node that adds them"
            )
        tokens, extras = entries[0]
        with torch.inference_mode(False):  # autograd refuses inference tensors
            rows.append(Row(_owned(tokens), _owned(dict(extras))))
    return NativeConditioning(tuple(rows))


def _owned(value: Any) -> Any:
    """A copy on the CPU that autograd accepts."""
    if isinstance(value, Tensor):
        return value.detach().cpu().clone()
    if isinstance(value, dict):
        return {name: _owned(part) for name, part in value.items()}
    if isinstance(value, list):
        return [_owned(part) for part in value]
    return value


def network_inputs(model: BaseModel, row: Row, latents: Tensor) -> dict[str, Any]:
    """What the model itself makes of a prompt, as conditions of ComfyUI by argument name.

    Args:
        latents: one picture's, [1, C, h, w] or [1, C, 1, h, w]; only the shape counts.
    """
    params: dict[str, Any] = {**row.extras, "cross_attn": row.tokens, "noise": latents}
    params["device"] = latents.device
    params["latent_image"], params["denoise_mask"], params["seed"] = latents, None, 0
    params["latent_shapes"] = [latents.shape]
    params["prompt_type"] = "positive"
    edges = {"height": latents.shape[-2] * 8, "width": latents.shape[-1] * 8}
    conditions = model.extra_conds(**{**edges, **params})
    if "c_concat" in conditions:
        raise UnsupportedError(
            "model must draw pictures from a prompt, got one that also needs a picture; link the "
            "MODEL of a text-to-image model"
        )
    conditions.pop("latent_shapes", None)
    return conditions


def batches(
    model: BaseModel, rows: Sequence[Row], latents: Tensor
) -> Iterator[tuple[list[int], dict[str, Any]]]:
    """Batches for the network: the indices of their rows, and arguments of ``apply_model``. Rows
    whose conditions differ in shape, such as captions of different lengths, cannot be one batch.

    Args:
        latents: one picture for each row.
    """
    conditions = [network_inputs(model, row, latents[:1]) for row in rows]
    groups: dict[tuple[object, ...], list[int]] = {}
    for index, by_name in enumerate(conditions):
        key = tuple((name, *_shape(by_name[name])) for name in sorted(by_name))
        groups.setdefault(key, []).append(index)
    for members in groups.values():
        processed = [
            {
                name: condition.process_cond(batch_size=1, area=None)
                for name, condition in conditions[index].items()
            }
            for index in members
        ]
        # Not through `calc_cond_batch`: it applies each row to every picture and averages.
        yield members, comfy.samplers.cond_cat(processed)


def _shape(condition: Any) -> tuple[object, ...]:
    value = condition.cond
    if isinstance(value, Tensor):
        return (*value.shape,)
    if isinstance(value, list):
        return tuple(shape for part in value for shape in (*part.shape, None))
    return (value,)
