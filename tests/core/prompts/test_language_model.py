"""Proposed values, from a tiny language model that memorized a list."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from unlearn_core.prompts.concept import ForgetConcept
from unlearn_core.prompts.language_model import Proposer, extended, usable

from ..tiny_models import write_language_model
from ..watching import Recorder

CAT = ForgetConcept("cat", "object", ("kitten",))
FRUITS = ("apple", "pear", "plum", "fig", "kiwi", "lemon", "cat")


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model that continues any text with a list of fruits and a cat."""
    text = "".join(f"- {fruit}\n" for fruit in FRUITS) * 9
    return write_language_model(tmp_path_factory.mktemp("llm") / "lists", text)


def test_the_list_is_continued(folder: Path) -> None:
    proposer = Proposer(folder)
    proposals = proposer.propose("fruit", ("apple", "pear"), 3, CAT)
    assert len(set(proposals)) == len(proposals) == 3
    assert set(proposals) & {"plum", "fig", "kiwi", "lemon"}
    assert not {"apple", "pear", "cat"} & set(proposals)
    assert proposer.propose("fruit", ("apple", "pear"), 3, CAT) == proposals
    seeds = range(4)
    others = {proposer.propose("fruit", ("apple", "pear"), 3, CAT, seed=seed) for seed in seeds}
    assert len(others) > 1
    before = torch.random.get_rng_state()
    proposer.propose("fruit", ("apple",), 1, CAT)
    assert torch.equal(torch.random.get_rng_state(), before)


def test_an_incomplete_value_is_not_proposed(tmp_path: Path) -> None:
    """Here each letter is a token, and a word has more tokens than the limit."""
    words = ("strawberry", "blackcurrant", "pomegranate", "elderberry")
    folder = write_language_model(tmp_path / "long", "".join(f"- {word}\n" for word in words) * 9)
    proposer = Proposer(folder)
    for count in (1, 2, 3):
        for value in proposer.propose("fruit", ("strawberry",), count, CAT):
            assert not any(word.startswith(value) for word in words if word != value)


def test_every_dimension_is_extended(folder: Path) -> None:
    progress = Recorder()
    dimensions = {"fruit": ("apple", "pear"), "other": ("plum", "fig")}
    longer = extended(Proposer(folder), dimensions, 2, CAT, progress=progress)
    assert progress.counts("proposing")[-1] >= len(dimensions)
    for name, values in dimensions.items():
        assert longer[name][:2] == values
        assert 2 <= len(longer[name]) <= 4


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        ("apple", True),
        ("an old man with a hat", True),
        ("", False),
        ("a, b", False),
        ("name: value", False),
        ("a、b", False),
        ("name：value", False),
        ("{concept}", False),
        ("a cat", False),
        ("Kitten", False),
        ("this is far too long to be a value", False),
        ("bell\a", False),
    ],
)
def test_usable_values(value: str, expected: bool) -> None:
    assert usable(value, CAT) is expected


def test_a_folder_without_a_language_model_is_refused(tmp_path: Path, sd_folder: Path) -> None:
    with pytest.raises(ValueError, match="language_model: .* no config.json"):
        Proposer(tmp_path)
    (tmp_path / "config.json").write_text("{}")
    with pytest.raises(ValueError, match="language_model: cannot open"):
        Proposer(tmp_path)
    with pytest.raises(ValueError, match="language_model: "):
        Proposer(sd_folder / "unet")
