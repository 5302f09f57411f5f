"""A model folder from a stranger: nothing in it reaches the network, other files or the memory."""

from __future__ import annotations

import json
import os
import shutil
import socket
import time
from pathlib import Path
from typing import Any

import pytest

from unlearn_core.models.load import ModelError, load_model
from unlearn_core.models.options import LoadOptions

HUB_ID = "somebody/some-model"


@pytest.fixture
def folder(sd_folder: Path, tmp_path: Path) -> Path:
    """A copy that a test may change."""
    return Path(shutil.copytree(sd_folder, tmp_path / "model"))


@pytest.fixture(autouse=True)
def offline(monkeypatch: pytest.MonkeyPatch) -> None:
    """Whatever opens a connection fails the test, although the libraries would hide the error."""

    def refuse(*_: Any, **__: Any) -> None:
        pytest.exit("a file reached the network", 1)

    monkeypatch.setattr(socket, "getaddrinfo", refuse)
    monkeypatch.setattr(socket.socket, "connect", refuse)


def write(file: Path, content: object) -> None:
    file.write_text(json.dumps(content), encoding="utf-8")


def edit(file: Path, **changes: object) -> None:
    write(file, json.loads(file.read_text(encoding="utf-8")) | changes)


@pytest.mark.parametrize("content", [HUB_ID, [HUB_ID], 3, None])
@pytest.mark.parametrize(
    "file", ["scheduler/scheduler_config.json", "unet/config.json", "text_encoder/config.json"]
)
def test_settings_that_are_only_a_name(folder: Path, file: str, content: object) -> None:
    """diffusers takes a text in place of a scheduler's settings for a name on a hub."""
    write(folder / file, content)
    with pytest.raises(ModelError, match=f"^model: model/{file} is not a JSON object"):
        load_model(folder)


@pytest.mark.parametrize(
    ("file", "changes", "message"),
    [
        ("unet/config.json", {"auto_map": {"AutoModel": f"{HUB_ID}--m.M"}}, "code of its own"),
        ("tokenizer/tokenizer_config.json", {"auto_map": {"AutoTokenizer": ["a.B"]}}, "code of"),
        ("unet/config.json", {"quantization_config": {"quant_method": "x"}}, "quantised weights"),
        ("text_encoder/config.json", {"_attn_implementation": HUB_ID}, "code on a hub"),
        ("text_encoder/config.json", {"attn_implementation": HUB_ID}, "code on a hub"),
    ],
)
def test_settings_that_load_something_else(
    folder: Path, file: str, changes: dict[str, object], message: str
) -> None:
    edit(folder / file, **changes)
    with pytest.raises(ModelError, match=f"^model: model/{file} .*{message}"):
        load_model(folder)


def test_an_adapter_of_another_model(folder: Path) -> None:
    """transformers would load that model in place of the text encoder."""
    write(
        folder / "text_encoder" / "adapter_config.json",
        {"base_model_name_or_path": HUB_ID, "peft_type": "LORA"},
    )
    with pytest.raises(ModelError, match="adapter_config.json .*an adapter of another model"):
        load_model(folder)


def test_names_of_hubs_in_other_settings_are_ignored(folder: Path) -> None:
    for file in folder.glob("*/*config.json"):
        edit(file, _name_or_path=HUB_ID, name_or_path=HUB_ID)
    edit(folder / "model_index.json", _name_or_path=HUB_ID)
    load_model(folder)


@pytest.mark.parametrize("inside", ["README.md", "unet/extra.json", "vae/notes.txt"])
def test_a_link_to_a_file_outside_is_refused(folder: Path, tmp_path: Path, inside: str) -> None:
    """It would be copied into the saved model."""
    secret = tmp_path / "secret.json"
    write(secret, {})
    os.symlink(secret, folder / inside)
    with pytest.raises(ModelError, match=f"^model: model/{inside} is a link to a place outside"):
        load_model(folder)


def test_a_link_to_a_folder_outside_is_refused(folder: Path, sd_folder: Path) -> None:
    shutil.rmtree(folder / "vae")
    os.symlink(sd_folder / "vae", folder / "vae", target_is_directory=True)
    with pytest.raises(ModelError, match="^model: model/vae is a link to a place outside"):
        load_model(folder)


def test_a_circle_of_links_is_refused(folder: Path) -> None:
    os.symlink(folder / "unet" / "b", folder / "unet" / "a")
    os.symlink(folder / "unet" / "a", folder / "unet" / "b")
    with pytest.raises(ModelError, match="^model: model/unet/a is a link"):
        load_model(folder)


def test_links_within_the_folder_and_to_it_are_followed(folder: Path, tmp_path: Path) -> None:
    (folder / "unet" / "config.json").rename(folder / "kept.json")
    os.symlink("../kept.json", folder / "unet" / "config.json")
    os.symlink(folder, tmp_path / "linked", target_is_directory=True)
    load_model(tmp_path / "linked")


def test_a_snapshot_of_a_download_consists_of_links(folder: Path, tmp_path: Path) -> None:
    """As huggingface_hub stores it: snapshots of links to blobs."""
    download = tmp_path / "models--somebody--some-model"
    snapshot, blobs = download / "snapshots" / "1234", download / "blobs"
    snapshot.parent.mkdir(parents=True)
    blobs.mkdir()
    shutil.move(folder, snapshot)
    for i, file in enumerate(sorted(f for f in snapshot.rglob("*") if f.is_file())):
        file.rename(blobs / str(i))
        os.symlink(os.path.relpath(blobs / str(i), file.parent), file)
    load_model(snapshot)


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="Windows has no pipes in folders")
@pytest.mark.parametrize("name", ["unet/config.json", "model_index.json", "vae/a.txt"])
def test_a_pipe_is_refused(folder: Path, name: str) -> None:
    """Reading it would wait for ever."""
    (folder / name).unlink(missing_ok=True)
    os.mkfifo(folder / name)
    with pytest.raises(ModelError, match="is not a regular file|has no model_index.json"):
        load_model(folder)


NESTED = "[" * 100_000


@pytest.mark.parametrize(
    ("file", "content", "message"),
    [
        ("model_index.json", NESTED, "is nested too deeply"),
        ("unet/config.json", '{"a": ' * 5000, "is nested too deeply"),
        ("tokenizer/vocab.json", NESTED, "is nested too deeply"),
        ("vae/config.json", " " * 2_000_000, "has 2000000 bytes; the limit is 1000000"),
        ("scheduler/scheduler_config.json", '{"a": 1' + "0" * 5000 + "}", "is not JSON"),
    ],
)
def test_settings_beyond_the_limits(folder: Path, file: str, content: str, message: str) -> None:
    (folder / file).write_text(content, encoding="utf-8")
    with pytest.raises(ModelError, match=f"^model: model/{file} {message}"):
        load_model(folder)


@pytest.mark.parametrize(
    ("file", "changes", "message"),
    [
        ("scheduler/scheduler_config.json", {"num_train_timesteps": 10**8}, "from 2 to 100000"),
        ("unet/config.json", {"layers_per_block": 10**9}, "layers_per_block must be 1000 or less"),
        ("unet/config.json", {"cross_attention_dim": 10**7}, "describes .* numbers, but its files"),
        ("text_encoder/config.json", {"num_hidden_layers": 10**6}, "must be 1000 or less"),
        ("text_encoder/config.json", {"vocab_size": 10**9}, "describes .* but its files contain"),
        ("vae/config.json", {"block_out_channels": [64, 10**6]}, "describes .* numbers"),
    ],
)
def test_settings_that_would_fill_the_memory(
    folder: Path, file: str, changes: dict[str, object], message: str
) -> None:
    edit(folder / file, **changes)
    started = time.process_time()
    with pytest.raises(ModelError, match=message):
        load_model(folder)
    assert time.process_time() - started < 10


def test_a_tokenizer_that_its_library_cannot_read(folder: Path) -> None:
    write(folder / "tokenizer" / "tokenizer.json", {"model": {"type": "BPE"}})
    for name in ("vocab.json", "merges.txt"):
        (folder / "tokenizer" / name).unlink(missing_ok=True)
    with pytest.raises(ModelError, match="^model: model/tokenizer cannot be loaded"):
        load_model(folder)


@pytest.mark.parametrize("size", [[8, 8], 8, 8.0])
def test_a_size_as_a_number_or_a_pair(folder: Path, sd_folder: Path, size: object) -> None:
    edit(folder / "unet" / "config.json", sample_size=size)
    assert load_model(folder).info.image_size == load_model(sd_folder).info.image_size


@pytest.mark.parametrize(
    ("size", "message"),
    [([8, 16], "square"), (None, "a whole number"), ("8", "whole number"),
     ([], "whole number"), ([8, 8, 8], "square"), (0, "whole number"), (True, "whole")],
)  # fmt: skip
def test_a_size_that_is_not_one_number(folder: Path, size: object, message: str) -> None:
    edit(folder / "unet" / "config.json", sample_size=size)
    with pytest.raises(ModelError, match=f"sample_size of model/unet/.* must be .*{message}"):
        load_model(folder)


def test_a_size_that_is_not_square_does_not_matter_with_another_size(folder: Path) -> None:
    edit(folder / "unet" / "config.json", sample_size=[8, 16])
    assert load_model(folder, options=LoadOptions(image_size=64)).info.image_size == 64


@pytest.mark.parametrize("name", ["class_folder", "dit_folder", "sd3_folder", "flux_folder"])
def test_a_pair_in_every_family(request: pytest.FixtureRequest, tmp_path: Path, name: str) -> None:
    original = request.getfixturevalue(name)
    folder = Path(shutil.copytree(original, tmp_path / "copy"))
    for file in folder.glob("*/config.json"):
        size = json.loads(file.read_text(encoding="utf-8")).get("sample_size")
        if isinstance(size, int) and file.parent.name != "transformer":
            edit(file, sample_size=[size, size])
    assert load_model(folder).info.image_size == load_model(original).info.image_size
