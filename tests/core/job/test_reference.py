"""``--help`` explains every field of a settings file."""

from __future__ import annotations

import json
from dataclasses import fields
from pathlib import Path

import pytest

from unlearn_core.job.cli import main
from unlearn_core.job.settings_file import SECTIONS


def test_help_contains_every_field_with_default_rule_and_description(
    capsys: pytest.CaptureFixture[str],
) -> None:
    with pytest.raises(SystemExit) as caught:
        main(["settings", "--help"])
    assert caught.value.code == 0
    output = capsys.readouterr().out
    for section, owner in SECTIONS.items():
        part = output.split(f"\n{section}:\n")[1].split("\n\n")[0]
        for field in fields(owner):
            assert f"\n  {field.name} (" in f"\n{part}", field.name
    assert "learning_rate (default 0.0): 0 or more, 1 or less" in output


def test_a_settings_file_is_checked_without_a_run(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = tmp_path / "settings.json"
    content = {"model": "m", "concept": {"name": "ink"}, "unlearn": {"steps": 5}}
    file.write_text(json.dumps(content), encoding="utf-8")
    assert main(["settings", str(file)]) == 0
    assert "no mistakes found" in capsys.readouterr().out
    file.write_text(json.dumps({**content, "unlearn": {"steps": -1}}), encoding="utf-8")
    assert main(["settings", str(file)]) == 2
    assert "unlearn: steps must be 0 or more, got -1" in capsys.readouterr().err
