"""The parameters in each scope."""

from __future__ import annotations

from pathlib import Path

import pytest
from torch import nn

from unlearn_core.models.layers import SCOPES
from unlearn_core.models.load import load_model
from unlearn_core.models.protocol import ModelHandle
from unlearn_core.unlearning.auto import resolved
from unlearn_core.unlearning.scopes import parameter_names
from unlearn_core.unlearning.settings import UnlearnSettings


def test_full_contains_all_parameters_in_the_models_order(model: ModelHandle) -> None:
    assert parameter_names(model, "full") == [name for name, _ in model.named_parameters()]


def test_noxattn_is_the_scope_of_esd_u(sd_model: ModelHandle) -> None:
    """ESD's code excludes ``attn2``, ``time_embed`` and ``out``, by their names in LDM."""
    names = {name for name, _ in sd_model.named_parameters()}
    excluded = (
        names - set(parameter_names(sd_model, "noxattn")) - set(parameter_names(sd_model, "xattn"))
    )
    assert {name.rsplit(".", 1)[0] for name in excluded} == {
        "time_embedding.linear_1",
        "time_embedding.linear_2",
        "conv_norm_out",
        "conv_out",
    }


def test_noxattn_2025_is_the_present_scope_of_esd_u(sd_model: ModelHandle) -> None:
    """ESD's code selects layers by type: linear layers and convolutions."""
    expected = {
        f"{name}.{parameter}"
        for name, layer in sd_model.denoiser.named_modules()  # pyright: ignore[reportAttributeAccessIssue]
        if isinstance(layer, (nn.Linear, nn.Conv2d)) and "attn2" not in name
        for parameter, _ in layer.named_parameters()
    }
    names = parameter_names(sd_model, "noxattn-2025")
    assert set(names) == expected
    assert {"time_embedding.linear_1.weight", "conv_out.weight"} <= expected
    assert set(names) != set(parameter_names(sd_model, "noxattn"))


def test_xattn_contains_the_layers_that_read_the_prompt(sd_model: ModelHandle) -> None:
    """In a Stable Diffusion U-Net, only the cross-attention keys and values have the width of the
    text embeddings; the scope contains their layers, including queries and outputs."""
    names = parameter_names(sd_model, "xattn")
    readers = {
        name.rsplit(".to_", 1)[0]
        for name, _ in sd_model.named_parameters()
        if name.endswith("attn2.to_k.weight")
    }
    assert readers
    assert {name.rsplit(".to_", 1)[0] for name in names} == readers
    for reader in readers:
        assert {f"{reader}.to_{part}.weight" for part in "qkv"} <= set(names)
    assert len(names) < len(parameter_names(sd_model, "full")) / 2


def test_the_error_for_an_empty_scope_suggests_another(class_folder: Path) -> None:
    message = "scope 'xattn' does not exist in 'tiny-class', .* choose 'auto', or one of: .*full"
    with pytest.raises(ValueError, match=message):
        parameter_names(load_model(class_folder), "xattn")


def test_the_error_for_an_unknown_scope_lists_the_known_ones(sd_model: ModelHandle) -> None:
    with pytest.raises(ValueError, match=f"scope must be one of {', '.join(SCOPES)}, got 'lora9'"):
        parameter_names(sd_model, "lora9")


@pytest.mark.parametrize(
    ("scope", "layers"),
    [
        ("text path", {"attn2.to_k", "attn2.to_v"}),
        ("lora, text path", {"attn2.to_k", "attn2.to_v"}),
        ("lora, self-attention", {f"attn1.to_{part}" for part in ("q", "k", "v", "out.0")}),
        ("lora, cross-attention", {f"attn2.to_{part}" for part in ("q", "k", "v", "out.0")}),
        (
            "lora, attention",
            {f"attn{i}.to_{part}" for i in (1, 2) for part in ("q", "k", "v", "out.0")},
        ),
    ],
)
def test_the_groups_of_a_unet(sd_model: ModelHandle, scope: str, layers: set[str]) -> None:
    names = parameter_names(sd_model, scope)
    endings = {name.rpartition("transformer_blocks.")[2].partition(".")[2] for name in names}
    assert endings == {f"{layer}.weight" for layer in layers}


def test_auto_is_the_models_own_scope(sd_model: ModelHandle, class_folder: Path) -> None:
    assert parameter_names(sd_model, "auto") == parameter_names(sd_model, "xattn")
    assert resolved(UnlearnSettings(), sd_model).scope == "xattn"
    class_model = load_model(class_folder)
    assert resolved(UnlearnSettings(), class_model).scope == "full"
    chosen = UnlearnSettings(scope="lora")
    assert resolved(chosen, sd_model).scope == "lora"
