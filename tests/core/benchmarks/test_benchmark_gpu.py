"""The GPU benchmark's small models on the CPU; its full-size ones without weights."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch

from benchmarks import gpu
from benchmarks.gpu_models import MODELS

PARAMETERS = {"SDXL": 2_567_463_684, "Flux.1-dev": 11_901_408_320}  # of the published models


def test_small_models_are_measured(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(gpu, "TIMED", 1)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    gpu.main(["--small", "--results", str(tmp_path)])
    record = json.loads((tmp_path / "cpu-small.json").read_text())
    rows = record["measurements"]
    assert {(row["model"], row["scope"], row["default"]) for row in rows} == {
        ("SDXL", "lora, text path", False),
        ("SDXL", "lora, cross-attention", False),
        ("SDXL", "xattn", True),
        ("Flux.1-dev", "lora, text path", True),
    }
    assert all(row["fits"] and row["seconds"] > 0 and row["trained"] > 0 for row in rows)
    assert {row["peak_bytes"] for row in rows} == {None}


def test_without_a_gpu_it_is_refused(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    with pytest.raises(SystemExit):
        gpu.main([])
    assert "no GPU found" in capsys.readouterr().err


@pytest.mark.parametrize("name", MODELS)
def test_the_full_models_have_the_published_size(name: str) -> None:
    build, sizes, _ = MODELS[name]
    model = build(sizes, torch.device("meta"))
    assert sum(p.numel() for _, p in model.named_parameters()) == PARAMETERS[name]
    assert {p.dtype for _, p in model.named_parameters() if p.ndim > 1} == {torch.bfloat16}


def test_a_scope_that_does_not_fit_is_a_result(monkeypatch: pytest.MonkeyPatch) -> None:
    build, _, small = MODELS["SDXL"]

    def begin(*_: object) -> None:
        raise torch.OutOfMemoryError

    monkeypatch.setattr(gpu, "begin", begin)
    row = gpu.measure("SDXL", build(small, torch.device("cpu")), "auto", 1)
    assert not row.fits
    assert "out of memory" in str(row)
