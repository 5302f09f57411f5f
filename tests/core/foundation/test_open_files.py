"""Files that are open on Windows: writing works, or says what to close, and nothing is lost."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file

from unlearn_core.dataset.cache import LatentCache
from unlearn_core.foundation.atomic import appearing
from unlearn_core.foundation.own_folder import OwnFolder
from unlearn_core.foundation.safetensors_file import write_tensors

from ..windows_files import in_use, pretend_windows

CURE = "could not be saved .*nothing was written; close the programs that have it open"


@pytest.fixture(autouse=True)
def _windows(monkeypatch: pytest.MonkeyPatch) -> None:
    pretend_windows(monkeypatch)
    monkeypatch.setattr("unlearn_core.foundation.atomic.PAUSE", 0.0)


def save_lora(file: Path, value: float) -> None:
    with appearing(file) as part:
        write_tensors(part, {"lora": torch.full((64, 64), value)}, lambda _: {})


def save_folder(folder: Path, value: float) -> None:
    with appearing(folder) as part:
        part.mkdir()
        (part / "model_index.json").write_text("{}")
        write_tensors(part / "w.safetensors", {"w": torch.full((64, 64), value)}, lambda _: {})


def test_the_simulation_sees_open_and_mapped_files(tmp_path: Path) -> None:
    file = tmp_path / "a.safetensors"
    save_lora(file, 1.0)
    assert not in_use(file)
    tensors = load_file(file)
    assert in_use(file)
    assert in_use(tmp_path)
    with pytest.raises(PermissionError):
        file.unlink()
    del tensors
    file.unlink()


def test_saving_over_a_loaded_lora_says_what_to_close(tmp_path: Path) -> None:
    file = tmp_path / "mine.safetensors"
    save_lora(file, 1.0)
    with safe_open(file, "pt") as opened:
        tensor = opened.get_tensor("lora")
        with pytest.raises(OSError, match=CURE):
            save_lora(file, 2.0)
        assert tensor.eq(1.0).all()
        del tensor
    assert [path.name for path in tmp_path.iterdir()] == [file.name]
    save_lora(file, 2.0)
    assert load_file(file)["lora"].eq(2.0).all()


def test_a_folder_with_a_loaded_file_says_what_to_close(tmp_path: Path) -> None:
    folder = tmp_path / "model"
    save_folder(folder, 1.0)
    tensors = load_file(folder / "w.safetensors")
    with pytest.raises(OSError, match=CURE):
        save_folder(folder, 2.0)
    assert [path.name for path in tmp_path.iterdir()] == ["model"]
    assert load_file(folder / "w.safetensors")["w"].eq(1.0).all()
    del tensors
    save_folder(folder, 2.0)
    assert load_file(folder / "w.safetensors")["w"].eq(2.0).all()
    assert [path.name for path in tmp_path.iterdir()] == ["model"]


def test_a_result_that_is_open_says_what_to_close(tmp_path: Path) -> None:
    folder = OwnFolder(tmp_path)
    folder.write("report.json", b"{}")
    with (tmp_path / "report.json").open():
        with pytest.raises(OSError, match=CURE):
            folder.write("report.json", b"[]")
        with pytest.raises(OSError, match="could not be deleted .*close the programs"):
            folder.remove(["report.json"])
    folder.write("report.json", b"[]")
    assert json.loads((tmp_path / "report.json").read_text()) == []
    folder.remove(["report.json"])
    assert not (tmp_path / "report.json").exists()


def test_cache_files_that_are_open_stay_for_now(tmp_path: Path) -> None:
    cache = LatentCache(tmp_path, limit=0)
    keys = [f"{i:064x}" for i in range(2)]
    for key in keys:
        cache.put(key, torch.zeros(4, 2, 2))
    with (tmp_path / f"{keys[0]}.safetensors").open("rb"):
        cache.put(keys[0], torch.zeros(4, 2, 2))  # another process is reading it
        cache.trim()
        assert cache.size().pictures == 1
        assert cache.clear().pictures == 1
    assert cache.get(keys[0]) is not None
    assert cache.clear().pictures == 0
    assert list(tmp_path.iterdir()) == []
