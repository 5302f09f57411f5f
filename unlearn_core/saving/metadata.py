"""Metadata of saved files, by the conventions of other programs."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from datetime import datetime, timezone
from typing import Any

from ..foundation.version import VERSION
from ..models.families import FAMILIES, Family
from ..models.protocol import ModelInfo
from ..reporting.report import report_json
from ..unlearning.results import UnlearnedModel

IMPLEMENTATION = "https://github.com/Stability-AI/generative-models"
RESOLUTION = "modelspec.resolution"

Metadata = Callable[[str], Mapping[str, str]]
"""Returns a file's metadata; called with the SHA-256 of its tensors' bytes."""

CLIP_SKIP = "Trained with clip skip {0}: use it too (CLIP Set Last Layer: -{0})."


def family_of(unlearned: UnlearnedModel) -> Family | None:
    """The published family of the model, or None for any other architecture."""
    name = unlearned.base.info.family
    return next((family for family in FAMILIES if family.name == name), None)


def checkpoint_metadata(
    unlearned: UnlearnedModel,
    report: Mapping[str, Any] | None,
    title: str,
    original: Mapping[str, str],
    extra: Mapping[str, str],
) -> Metadata:
    """Metadata of a complete model: the original file's, extended by a description of the
    unlearning. The resolution is that of the model's training, not that in ``LoadOptions``.
    """
    info, family = unlearned.base.info, family_of(unlearned)
    edge = family.own_size(info.prediction) if family else info.image_size
    return lambda digest: {
        **original,
        **_common(unlearned, report, title, "", digest),
        RESOLUTION: original.get(RESOLUTION, f"{edge}x{edge}"),
        **extra,
    }


def lora_metadata(
    unlearned: UnlearnedModel,
    report: Mapping[str, Any] | None,
    title: str,
    rank: int,
    alpha: float,
    extra: Mapping[str, str],
) -> Metadata:
    """Metadata of a LoRA file, including the ``ss_`` keys of kohya's trainer that UIs read."""
    info, family = unlearned.base.info, family_of(unlearned)
    from_file = info.source is not None and info.source.is_file()
    return lambda digest: {
        **_common(unlearned, report, title, "/lora", digest),
        "ss_network_module": "networks.lora",
        "ss_network_dim": str(rank),
        "ss_network_alpha": f"{alpha:g}",
        "ss_output_name": title,
        "ss_sd_model_name": _file_name(info),
        # Only a single file's fingerprint is the hash that other programs use.
        **({"ss_new_sd_model_hash": info.fingerprint} if from_file else {}),
        **({"ss_clip_skip": str(info.clip_skip)} if info.clip_skip else {}),
        "ss_base_model_version": family.base_version if family else info.family,
        **extra,
    }


def _file_name(info: ModelInfo) -> str:
    return info.name if info.source is None else info.source.name


def _common(
    unlearned: UnlearnedModel,
    report: Mapping[str, Any] | None,
    title: str,
    suffix: str,
    digest: str,
) -> dict[str, str]:
    info, family = unlearned.base.info, family_of(unlearned)
    names = " and ".join(repr(part.concept.name) for part in unlearned.pairs.each)
    content = report or report_json(unlearned, None)
    # Further concepts: headline figures only; headers are small.
    also = [{key: part[key] for key in ("concept", "before", "after")} for part in content["also"]]
    summary = [line for part in (content, *content["also"]) for line in part.get("summary", ())]
    architecture = family.architecture if family else info.family
    return {
        "sshs_model_hash": digest,
        "modelspec.sai_model_spec": "1.0.0",
        "modelspec.architecture": architecture + suffix,
        "modelspec.implementation": IMPLEMENTATION,
        "modelspec.title": title,
        "modelspec.description": " ".join(
            [
                f"{info.name}, trained to suppress {names}.",
                *([CLIP_SKIP.format(info.clip_skip)] if info.clip_skip else []),
                *summary,
                *content["missing"],
            ]
        ),
        "modelspec.date": datetime.now(timezone.utc).isoformat(timespec="seconds"),
        RESOLUTION: f"{info.image_size}x{info.image_size}",
        "modelspec.prediction_type": {"v_prediction": "v"}.get(info.prediction, info.prediction),
        "modelspec.hash_sha256": f"0x{digest}",
        "unlearn.version": VERSION,
        "unlearn.base_model": _file_name(info),
        "unlearn.base_sha256": info.fingerprint,
        "unlearn.concept": json.dumps(content["concept"]),
        "unlearn.settings": json.dumps(content["settings"]),
        "unlearn.figures": json.dumps({side: content[side] for side in ("before", "after")}),
        **({"unlearn.also": json.dumps(also)} if also else {}),
        **({"unlearn.clip_skip": str(info.clip_skip)} if info.clip_skip else {}),
    }
