"""The file of a run's weights, with its steps and alarms."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file, save_file

from unlearn_core.dataset.rows import TrainingSets
from unlearn_core.foundation import atomic
from unlearn_core.models.protocol import ModelHandle
from unlearn_core.saving.run_state import read_unlearned, remove_outdated, write_unlearned
from unlearn_core.unlearning.alarms import turned_to_noise, went_back
from unlearn_core.unlearning.breakdown import NotFiniteError
from unlearn_core.unlearning.loop import Unlearning
from unlearn_core.unlearning.results import UnlearnedModel
from unlearn_core.unlearning.settings import UnlearnSettings


def test_alarms_come_back_and_earlier_files_have_none(
    sd_model: ModelHandle, sets: TrainingSets, tmp_path: Path
) -> None:
    run = Unlearning(sd_model, sets, UnlearnSettings(steps=2, batch_size=1, learning_rate=1e-3))
    next(iter(run))
    run.alarms.extend([went_back(3, NotFiniteError(), 1, 1e-4), turned_to_noise(2)])
    result = run.result()
    assert len(result.alarms) == 2
    file = tmp_path / "run.safetensors"
    write_unlearned(result, file, {})
    again = read_unlearned(file, sd_model, sets.pairs, result.settings)
    assert again.alarms == result.alarms
    assert again.reports == result.reports

    with safe_open(file, "pt") as opened:
        metadata = opened.metadata()
    assert len(json.loads(metadata.pop("alarms"))) == 2
    save_file(load_file(file), file, metadata)
    earlier = read_unlearned(file, sd_model, sets.pairs, result.settings)
    assert earlier.alarms == ()
    for name, tensor in result.model.changed_tensors().items():
        assert torch.equal(earlier.model.changed_tensors()[name], tensor)


@pytest.fixture
def result(sd_model: ModelHandle, sets: TrainingSets) -> UnlearnedModel:
    return Unlearning(sd_model, sets, UnlearnSettings(steps=2, batch_size=1)).result()


@pytest.fixture
def reports(tmp_path: Path) -> list[Path]:
    """Files that describe an earlier model."""
    files = [tmp_path / "report.json", tmp_path / "losses.png"]
    for file in files:
        file.write_text("earlier", encoding="utf-8")
        os.utime(file, (1000, 1000))
    return files


def test_the_report_of_the_earlier_model_stays_until_the_new_one_is_on_the_disk(
    result: UnlearnedModel, reports: list[Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file, sync = tmp_path / "run.safetensors", atomic.sync_folder

    def flushed(folder: Path) -> None:
        sync(folder)
        assert all(report.exists() for report in reports)
        if file.exists():
            raise OSError("the power fails")

    with monkeypatch.context() as patched:
        patched.setattr(atomic, "sync_folder", flushed)
        with pytest.raises(OSError, match="the power fails"):
            write_unlearned(result, file, {}, reports)
    # The next command removes what does not belong to the new model.
    os.utime(reports[1])  # written after it
    remove_outdated(file, reports)
    assert [report.exists() for report in reports] == [False, True]


def test_only_what_described_the_earlier_model_is_removed(
    result: UnlearnedModel, reports: list[Path], tmp_path: Path
) -> None:
    file = tmp_path / "run.safetensors"
    write_unlearned(result, file, {}, [reports[0]])
    assert [report.exists() for report in reports] == [False, True]
    reports[0].write_text("another", encoding="utf-8")
    os.utime(reports[0], (1000, 1000))
    remove_outdated(file, reports)
    assert all(report.exists() for report in reports)
