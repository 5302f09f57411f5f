"""The quick tier of the fuzz tests; ``python -m tests.fuzz --inputs 1000000`` is the long one."""

from __future__ import annotations

import random
import sys
from pathlib import Path

import pytest

if sys.platform == "win32":
    pytest.skip("alarms and limits of POSIX", allow_module_level=True)

from ..fuzz.mutations import mutated
from ..fuzz.runner import run
from ..fuzz.targets import TARGETS, Target

QUICK_INPUTS = 300  # of each quick parser


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("target", [t for t in TARGETS if t.share >= 0.02], ids=lambda t: t.name)
def test_a_parser_accepts_or_refuses(target: Target) -> None:
    figures = run(target, seed=1, first=0, count=max(30, round(QUICK_INPUTS * target.share)))
    assert figures.crashes == []
    assert figures.outside == []
    assert figures.accepted >= 1, "the corpus contains valid examples"
    assert figures.megabytes < 500


def test_every_example_of_the_corpus_belongs_to_a_parser() -> None:
    folder = Path(__file__).parents[1] / "fuzz" / "corpus"
    names = {file.name.partition(".")[0] for file in folder.iterdir()}
    assert names == {target.name for target in TARGETS if target.seeds is None}


def test_the_same_seed_gives_the_same_input() -> None:
    examples = [b'{"a": [1, 2]}', b"text"]
    one, two = (mutated(examples[0], examples, random.Random(7)) for _ in range(2))
    assert one == two


def test_a_crash_and_a_write_outside_are_noticed(tmp_path: Path) -> None:
    def broken(content: bytes, folder: Path) -> object:
        (tmp_path / "outside").write_bytes(content)
        return {}[content]

    figures = run(Target("broken", broken, seeds=lambda: [b"x"]), seed=0, first=0, count=2)
    assert figures.crashed == 2
    assert "KeyError" in figures.crashes[0]
    assert "outside" in figures.outside[0]
