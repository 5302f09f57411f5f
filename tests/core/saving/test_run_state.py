"""The file of a run's weights, with its steps and alarms."""

from __future__ import annotations

import json
from pathlib import Path

import torch
from safetensors import safe_open
from safetensors.torch import load_file, save_file

from unlearn_core.dataset.rows import TrainingSets
from unlearn_core.models.protocol import ModelHandle
from unlearn_core.saving.run_state import read_unlearned, write_unlearned
from unlearn_core.unlearning.alarms import turned_to_noise, went_back
from unlearn_core.unlearning.breakdown import NotFiniteError
from unlearn_core.unlearning.loop import Unlearning
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
