"""The benchmark of the memory, with small models."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from benchmarks.gpu_models import FULL_SDXL
from benchmarks.memory import Measurement, main, narrowed


def test_estimates_stand_beside_measurements(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    options = ["--small", "--model", "SDXL", "--scopes", "lora", "--batch-size", "2"]
    main([*options, "--results", str(tmp_path)])
    *_, line = capsys.readouterr().out.splitlines()
    model, scope, width, *_ = line.split()
    assert (model, scope, width) == ("SDXL", "lora", "1")
    (file,) = tmp_path.iterdir()
    row = Measurement(**json.loads(file.read_text()))
    assert row.estimated == pytest.approx(row.peak, rel=0.15)
    file.write_text(file.read_text().replace(str(row.peak), str(2 * row.peak)))
    main([*options, "--results", str(tmp_path)])
    assert f"{100 * (row.estimated / row.peak / 2 - 1):+.1f} %" in capsys.readouterr().out, (
        "a row that has a record is not measured again"
    )


def test_a_narrowed_network_has_half_the_width_and_the_same_heads() -> None:
    whole, half = FULL_SDXL.denoiser, narrowed(FULL_SDXL).denoiser
    for name in ("block_out_channels", "attention_head_dim"):
        assert half[name] == tuple(number // 2 for number in whole[name])
