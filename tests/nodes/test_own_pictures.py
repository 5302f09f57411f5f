"""Own Pictures, and unlearning with them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import folder_paths
import numpy as np
import pytest
import torch
from PIL import Image

from .conftest import QUICK
from .pack import NODES, node_result, pack_module, refusals, run_node, schema_inputs

NODE = "UnlearnOwnPictures"


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder of two pictures below ComfyUI's input folder."""
    monkeypatch.setattr(folder_paths, "input_directory", str(tmp_path / "input"))
    place = tmp_path / "input" / "mine"
    place.mkdir(parents=True)
    rng = np.random.default_rng(0)
    for name, size in (("a", (40, 40, 3)), ("b", (30, 60, 3))):
        Image.fromarray(rng.integers(0, 255, size, np.uint8)).save(place / f"{name}.png")
    return place


def test_a_folder_is_listed_and_read(folder: Path) -> None:
    assert schema_inputs(NODE)["folder"].options == ["none", "mine"]
    pictures, text = node_result(NODE, folder="mine", captions="ink style cat\nan ink dog")
    assert [tuple(pictures.image(i).shape) for i in (0, 1)] == [(3, 40, 40), (3, 30, 53)]
    assert "an ink dog" in text
    fingerprint = NODES[NODE].fingerprint_inputs
    before = fingerprint(folder="mine")
    assert "left out" not in text
    (folder / "._a.png").write_bytes(b"hidden")
    (folder / "c.gif").touch()
    assert "left out of mine: c.gif\n" in node_result(NODE, folder="mine", captions="ink")[1]
    (folder / "a.txt").write_text("ink style owl", encoding="utf-8")
    assert fingerprint(folder="mine") != before
    (again, _) = node_result(NODE, folder="mine", captions="an ink thing")
    assert again.captions == ("ink style owl", "an ink thing")


def test_linked_images_are_read(folder: Path) -> None:
    with torch.inference_mode():
        images = torch.rand(2, 20, 30, 4)
        images[1, 0, :2] = torch.tensor([[1.1], [-0.1]])  # like the result of bicubic resizing
    pictures, _ = node_result(NODE, images=images, captions="an ink cat", alone=True)
    assert [tuple(image.shape) for image in pictures.images] == [(3, 20, 30)] * 2
    actual = pictures.images[1].float() / 255
    expected = images[1, ..., :3].permute(2, 0, 1).clamp(0, 1)
    torch.testing.assert_close(actual, expected, atol=1 / 255, rtol=0)
    assert pictures.alone
    with pytest.raises(ValueError, match="folder must be 'none' .* unlink the images"):
        run_node(NODE, images=images, folder="mine", captions="x")


def test_without_pictures_the_message_has_the_cure() -> None:
    with pytest.raises(ValueError, match="link images or choose a folder"):
        run_node(NODE, captions="an ink cat")


@pytest.mark.parametrize("name", ["..", "../secret", "/etc", "C:\\", "not there"])
def test_no_folder_outside(folder: Path, name: str) -> None:
    (answer,) = refusals(NODE, folder=name)
    assert "folder" in answer


def test_unlearning_with_them(loaded: Any, pairs: Any, folder: Path, page: Any) -> None:
    (to_forget, _) = node_result(NODE, folder="mine", captions="an ink boat")
    (to_retain, _) = node_result(NODE, folder="mine", captions="a boat")
    result = node_result(
        "UnlearnRestrictedGradient",
        model=loaded,
        prompts=pairs,
        forget_pictures=to_forget,
        retain_pictures=to_retain,
        **QUICK,
    )
    assert len(result[0].reports) == QUICK["steps"]
    with pytest.raises(ValueError, match="'a boat' does not mention 'ink'"):
        run_node(
            "UnlearnRestrictedGradient",
            model=loaded,
            prompts=pairs,
            forget_pictures=to_retain,
            **QUICK,
        )
    assert pack_module("unlearn_core.dataset.own_pictures").OwnPictures is type(to_forget)


def test_linked_images_that_are_not_finite_are_refused() -> None:
    images = torch.rand(1, 8, 8, 3)
    images[0, 0, 0, 0] = float("nan")
    with pytest.raises(ValueError, match="^images: a picture holds NaN; repair the node"):
        run_node(NODE, images=images, captions="an ink cat")
