"""The benchmark of the memory, with small models."""

from __future__ import annotations

import pytest

from benchmarks.memory import main


def test_estimates_stand_beside_measurements(capsys: pytest.CaptureFixture[str]) -> None:
    main(["--small", "--model", "SDXL", "--scopes", "lora", "--batch-size", "2"])
    *_, line = capsys.readouterr().out.splitlines()
    model, scope, estimate, peak, error, _ = line.split()
    assert (model, scope) == ("SDXL", "lora")
    assert float(estimate) == pytest.approx(float(peak), rel=0.15, abs=0.01)
    assert abs(float(error)) <= 15
