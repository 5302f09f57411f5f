"""The file of a stopped run: complete or not there, and never used if it is damaged."""

from __future__ import annotations

import json
import random
import struct
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import save_file
from torch import Tensor

from unlearn_core.saving.resume import (
    OtherRunError,
    is_state,
    read_state,
    stored_steps,
    write_state,
)
from unlearn_core.unlearning.snapshot import Snapshot

IDENTITY: dict[str, Any] = {"model": "a", "unlearn": {"steps": 4}}
REPORT = {
    "step": 1,
    "forget_loss": 0.5,
    "retain_loss": 0.25,
    "cosine": 0.0,
    "conflict": False,
    "grad_forget_norm": 1.0,
    "grad_retain_norm": 1.0,
    "forget_change": -0.1,
    "retain_change": 0.0,
    "seconds": 1.0,
}


def tensors() -> dict[str, Tensor]:
    generator = torch.Generator().manual_seed(1)
    return {
        "mask.0": torch.tensor([True, False, True]),
        "next_batch": generator.get_state(),
        "weights.0": torch.randn(3, 5, generator=generator),
        "weights.1": torch.randn(7, generator=generator).bfloat16(),
        "weights.2": torch.randn((), generator=generator).half(),
        "empty.0": torch.zeros(0, 4),
        "strided.0": torch.randn(4, 6, generator=generator).T,
    }


def snapshot(**values: object) -> Snapshot:
    return Snapshot(tensors(), {"reports": [REPORT], **values})


@pytest.fixture
def file(tmp_path: Path) -> Path:
    write_state(tmp_path / "resume.safetensors", snapshot(), IDENTITY)
    return tmp_path / "resume.safetensors"


def test_a_state_comes_back_as_it_was(file: Path) -> None:
    state = read_state(file, IDENTITY)
    assert state.values == {"reports": [REPORT]}
    assert (state.step, stored_steps(file)) == (1, [REPORT])
    assert state.tensors.keys() == tensors().keys()
    for name, tensor in tensors().items():
        assert state.tensors[name].dtype == tensor.dtype
        assert torch.equal(state.tensors[name], tensor)
    with safe_open(file, "pt") as opened:
        assert set(opened.keys()) == tensors().keys()


def test_the_state_of_another_run_is_refused_by_name(file: Path) -> None:
    for other, message in (
        ({"model": "b", "unlearn": {"steps": 4}}, "other inputs: model"),
        ({"model": "a", "unlearn": {"steps": 5}}, r"unlearn \(steps was 4, now 5\)"),
        ({**IDENTITY, "new": 1}, "other inputs: new"),
    ):
        with pytest.raises(OtherRunError, match=message):
            read_state(file, other)


def test_no_damaged_state_is_used(file: Path) -> None:
    """One changed byte, or the end cut off, anywhere in the file."""
    content, numbers = file.read_bytes(), random.Random(0)
    for _ in range(300):
        position = numbers.randrange(len(content))
        damaged = bytearray(content)
        if numbers.random() < 0.3:
            damaged = damaged[:position]
        else:
            damaged[position] ^= 1 << numbers.randrange(8)
        file.write_bytes(damaged)
        try:
            state = read_state(file, IDENTITY)
        except ValueError:
            continue
        # The padding of the header is not part of the state.
        assert state.values == {"reports": [REPORT]}
        assert all(torch.equal(state.tensors[name], t) for name, t in tensors().items())


@pytest.mark.parametrize(
    "metadata",
    [
        {},
        {"unlearn_run": "["},
        {"unlearn_run": "[" * 100_000},
        {"unlearn_run": f'{{"format": 1, "identity": {"[" * 65}{"]" * 65}, "reports": []}}'},
        {"unlearn_run": "[]"},
        {"unlearn_run": "{}"},
        {"unlearn_run": json.dumps({"format": 1, "identity": 3, "reports": []})},
        {"unlearn_run": json.dumps({"format": 9, "identity": IDENTITY, "reports": []})},
        {"unlearn_run": json.dumps({"format": 1, "identity": IDENTITY, "reports": []})},
    ],
)
def test_a_file_of_something_else_is_refused(tmp_path: Path, metadata: dict[str, str]) -> None:
    file = tmp_path / "resume.safetensors"
    header = json.dumps({"__metadata__": metadata}).encode()
    file.write_bytes(struct.pack("<Q", len(header)) + header)
    with pytest.raises(ValueError, match=r"^'resume.safetensors' (is|belongs)"):
        read_state(file, IDENTITY)
    assert stored_steps(file) in (None, [])
    with pytest.raises(ValueError, match="damaged"):
        read_state(tmp_path / "missing", IDENTITY)


def test_a_state_is_known_by_its_beginning_even_if_it_is_damaged(file: Path) -> None:
    assert is_state(file)
    content = file.read_bytes()
    file.write_bytes(content[: len(content) // 2])
    assert is_state(file)
    file.write_bytes(b"")
    assert is_state(file)
    save_file({"weights.0": torch.zeros(2)}, file, {"format": "pt"})
    assert not is_state(file)


def test_a_full_disk_leaves_the_earlier_state(file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    before = file.read_bytes()

    def full(*_: object) -> None:
        raise OSError("No space left on device")

    monkeypatch.setattr("unlearn_core.saving.resume.raw_bytes", full)
    with pytest.raises(OSError, match="No space left"):
        write_state(file, snapshot(more=1), IDENTITY)
    assert file.read_bytes() == before
    assert list(file.parent.iterdir()) == [file]


@pytest.mark.parametrize(
    ("name", "value", "message"),
    [
        ("step", 2, "without gaps"),
        ("step", True, "step must not be True"),
        ("seconds", "1", "seconds must not be '1'"),
        ("seconds", float("nan"), "must not be nan"),
        ("more", 1, "more must not be 1"),
    ],
)
def test_reports_are_checked(name: str, value: object, message: str) -> None:
    state = Snapshot({}, {"reports": [{**REPORT, name: value}]})
    with pytest.raises(ValueError, match=message):
        state.reports(4)


def test_tensors_are_checked() -> None:
    state = snapshot()
    assert state.list_of("none", []) == []
    with pytest.raises(ValueError, match=r"'weights.0' must be .*\[5, 3\], got .*\[3, 5\]"):
        state.list_of("weights", [torch.zeros(5, 3)])
    with pytest.raises(ValueError, match=r"'mask.1' is missing"):
        state.list_of("mask", [torch.zeros(3)] * 2, torch.bool)
    with pytest.raises(ValueError, match=r"'bad.0' is not finite"):
        Snapshot({"bad.0": torch.tensor([1.0, torch.inf])}, {}).list_of("bad", [torch.zeros(2)])
    with pytest.raises(ValueError, match="no state of a generator"):
        Snapshot({"g": torch.zeros_like(tensors()["next_batch"])}, {}).generator("g")
    assert not Snapshot({"w": torch.tensor(torch.nan)}, {"reports": []}).is_finite
    assert state.is_finite
