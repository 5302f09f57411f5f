"""Clip skip: which models have it, and what it is part of."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from safetensors import safe_open

from unlearn_core.dataset.drawing import picture_key
from unlearn_core.dataset.settings import GenerationSettings
from unlearn_core.models.errors import ModelError
from unlearn_core.models.load import load_model
from unlearn_core.models.options import LoadOptions
from unlearn_core.models.protocol import ModelHandle
from unlearn_core.prompts.pairs import PromptPairs
from unlearn_core.saving.lora import save_lora
from unlearn_core.saving.run_state import run_identity
from unlearn_core.unlearning.results import UnlearnedModel
from unlearn_core.unlearning.settings import UnlearnSettings

DRAWING = GenerationSettings()


def skipping(folder: Path, clip_skip: int) -> ModelHandle:
    return load_model(folder, options=LoadOptions(clip_skip=clip_skip))


def test_it_is_the_layer_before_the_last_with_the_last_normalization(sd_folder: Path) -> None:
    model = skipping(sd_folder, 2)
    clip = model.text.clips[0]  # type: ignore[attr-defined]
    tokens = clip.tokenizer("a cat", padding="max_length", return_tensors="pt").input_ids
    with torch.no_grad():
        hidden = clip.encoder(tokens, output_hidden_states=True).hidden_states
        norm = getattr(clip.encoder, "text_model", clip.encoder).final_layer_norm
        expected, last = norm(hidden[-2])[0], norm(hidden[-1])[0]
    (actual,) = model.encode_prompts(["a cat"]).text_inputs()["tokens"]
    torch.testing.assert_close(actual, expected)
    for same in (0, 1):
        (own,) = skipping(sd_folder, same).encode_prompts(["a cat"]).text_inputs()["tokens"]
        torch.testing.assert_close(own, last)
        assert skipping(sd_folder, same).info.clip_skip == 0


def test_it_is_part_of_the_identity_only_if_it_is_on(
    sd_folder: Path, sd_model: ModelHandle, pairs: PromptPairs
) -> None:
    off, on = skipping(sd_folder, 1), skipping(sd_folder, 2)
    keys = [picture_key(model, "a cat", 0, DRAWING) for model in (sd_model, off, on)]
    assert keys[0] == keys[1] != keys[2]
    plain, same, other = (
        run_identity(model, pairs, UnlearnSettings(), DRAWING, None, None)
        for model in (sd_model, off, on)
    )
    assert plain == same
    assert "clip_skip" not in plain
    assert other == {**plain, "clip_skip": 2}


def test_the_saved_file_tells_it(sd_folder: Path, pairs: PromptPairs, tmp_path: Path) -> None:
    for clip_skip in (0, 2):
        base = skipping(sd_folder, clip_skip)
        model = base.trainable_copy(base.parameters_in("xattn"))
        with torch.no_grad():
            for name, parameter in model.named_parameters():
                if name.endswith("attn2.to_k.weight"):
                    parameter.add_(0.1)
        file = tmp_path / f"{clip_skip}.safetensors"
        save_lora(UnlearnedModel(model, base, pairs, UnlearnSettings(), ()), file, rank=4)
        with safe_open(file, framework="pt") as opened:
            metadata = opened.metadata()
        assert metadata.get("ss_clip_skip") == metadata.get("unlearn.clip_skip")
        assert metadata.get("ss_clip_skip") == (str(clip_skip) if clip_skip else None)
        assert ("clip skip 2" in metadata["modelspec.description"]) is bool(clip_skip)


def test_models_with_a_fixed_layer(
    sdxl_folder: Path, class_folder: Path, flux_folder: Path, sd_folder: Path
) -> None:
    assert skipping(sdxl_folder, 2).info.clip_skip == 0, "2 is its own layer"
    with pytest.raises(ModelError, match="clip_skip must be 0 to 2 .*, got 3"):
        skipping(sdxl_folder, 3)
    with pytest.raises(ModelError, match="clip_skip must be at most 2 .*, got 3"):
        skipping(sd_folder, 3)
    for folder in (class_folder, flux_folder):
        with pytest.raises(ModelError, match="clip_skip must be 0 .*, got 2"):
            skipping(folder, 2)
    with pytest.raises(ValueError, match="clip_skip must be 0 or more, got -1"):
        LoadOptions(clip_skip=-1)
