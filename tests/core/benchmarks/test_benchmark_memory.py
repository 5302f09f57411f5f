"""The benchmark of the memory, with small models."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from benchmarks import memory
from benchmarks.gpu_models import FULL_SDXL
from benchmarks.memory import BLOCK, PAGE, RESULTS, Measurement, main, narrowed, read, table
from unlearn_core.models.protocol import ModelHandle
from unlearn_core.unlearning.plan import ERROR


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


def test_the_page_has_the_committed_rows() -> None:
    block = f"<!-- {BLOCK} -->\n\n{table()}\n\n<!-- end of {BLOCK} -->"
    assert block in PAGE.read_text(encoding="utf-8"), "run python -m benchmarks.memory --page"


def test_the_committed_estimates_are_close_to_the_measurements() -> None:
    rows = [read(file) for file in RESULTS.glob("*.json")]
    assert rows
    for row in rows:
        assert abs(row.error) <= ERROR, str(row)


def test_smaller_pictures_have_a_record_of_their_own(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    measured: list[int] = []

    def measure(name: str, model: ModelHandle, scope: str, *_: object) -> Measurement:
        measured.append(model.info.image_size)
        return Measurement(name, scope, 1.0, measured[-1], 1, 1, "", {"model": 1}, 1)

    monkeypatch.setattr(memory, "measure", measure)
    options = ["--small", "--model", "SD 1.5", "--scopes", "lora", "--results", str(tmp_path)]
    main(options)
    main([*options, "--image-size", "32"])
    assert measured == [64, 32]
    assert len(list(tmp_path.iterdir())) == 2
