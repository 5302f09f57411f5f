"""Settings files and reports from strangers: one line in place of a traceback."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from unlearn_core.job import cli
from unlearn_core.job.settings_file import read_settings

SETTINGS: dict[str, Any] = {"model": "m", "concept": {"name": "ink"}}
NESTED = "[" * 100_000


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (NESTED, "is nested too deeply"),
        ('{"model": ' + "[" * 500 + "]" * 500 + "}", "is nested too deeply"),
        (" " * 6_000_000, "has 6000000 bytes; the limit is 5000000"),
        ('{"model": "m", "concept": {"name": ["ink"]}}', "concept must be a word"),
        ('{"model": {"a": 1}, "concept": {"name": "ink"}}', "model must be the path"),
        ('{"model": "m", "concept": "ink"}', "concept must be an object"),
        ('{"model": "m", "concept": {"name": "i"}, "unlearn": [1]}', "unlearn must be an object"),
        ('{"model": "m", "concept": {"name": "i"}, "also": {"a": 1}}', "also must be a list"),
        ('{"model": "m", "concept": {"name": "i"}, "evaluation": {"generation": 3}}', "an object"),
    ],
)
def test_one_line_says_what_is_wrong(
    tmp_path: Path, text: str, message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    file = tmp_path / "job.json"
    file.write_text(text, encoding="utf-8")
    with pytest.raises(ValueError, match=message):
        read_settings(file)
    assert cli.main(["settings", str(file)]) == 2
    printed = capsys.readouterr().err
    assert printed.startswith("error: ")
    assert printed.count("\n") == 1
    assert len(printed) < 1000


@pytest.mark.parametrize("name", ["a\0b", "a" * 5000, "/dev/stdin", "/dev/zero"])
def test_a_settings_file_that_is_no_file(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["settings", name]) == 2
    assert capsys.readouterr().err.startswith("error: ")


@pytest.mark.parametrize("number", ["1e400", "-1e400", "NaN", "1" + "0" * 400])
@pytest.mark.parametrize("field", ["learning_rate", "retain_weight", "batch_size", "lora_rank"])
def test_numbers_beyond_every_limit(tmp_path: Path, field: str, number: str) -> None:
    file = tmp_path / "job.json"
    text = json.dumps({**SETTINGS, "unlearn": {field: "HERE"}})
    file.write_text(text.replace('"HERE"', number), encoding="utf-8")
    with pytest.raises(ValueError, match=f"^unlearn: {field} must be"):
        read_settings(file)


def test_the_last_catch_says_what_was_read_and_asks_for_a_report(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def broken(_: object) -> None:
        raise IndexError("tuple index out of range")

    monkeypatch.setattr(cli, "read_settings", broken)
    assert cli.main(["unlearn", "my job.json", "--out", str(tmp_path / "results")]) == 3
    printed = capsys.readouterr().err
    assert printed.count("\n") == 1
    for part in ("IndexError (tuple index out of range)", "my job.json", "results", "report it"):
        assert part in printed
