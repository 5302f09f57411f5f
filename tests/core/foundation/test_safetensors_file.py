"""Writing and rewriting safetensors files as a stream, read back with the library."""

from __future__ import annotations

import hashlib
from pathlib import Path

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors import safe_open
from safetensors.torch import load_file, save_file
from torch import Tensor

from unlearn_core.foundation.atomic import appearing
from unlearn_core.foundation.safetensors_file import (
    DTYPES,
    copy_replacing,
    read_header,
    write_converted,
    write_tensors,
)

from ..watching import Recorder, StopError, Stopping

SHAPES = st.lists(st.integers(0, 5), max_size=3).map(tuple)
TENSORS = st.dictionaries(
    st.text("abc.é", min_size=1, max_size=8),
    st.builds(lambda shape, dtype: torch.randn(shape).to(dtype), SHAPES,
              st.sampled_from(list(DTYPES.values()))),
    max_size=6,
)  # fmt: skip


def same(actual: dict[str, Tensor], expected: dict[str, Tensor]) -> bool:
    return actual.keys() == expected.keys() and all(
        actual[name].dtype == value.dtype and torch.equal(actual[name], value)
        for name, value in expected.items()
    )


def content_hash(file: Path) -> str:
    """The hash as kohya's trainer defines it: without the metadata."""
    content = file.read_bytes()
    return hashlib.sha256(content[8 + int.from_bytes(content[:8], "little") :]).hexdigest()


@given(TENSORS)
@settings(max_examples=40)
def test_the_library_reads_a_written_file(
    tmp_path_factory: pytest.TempPathFactory, tensors: dict[str, Tensor]
) -> None:
    file = tmp_path_factory.mktemp("written") / "file.safetensors"
    write_tensors(file, tensors, lambda digest: {"hash": digest, "who": "wé"})
    assert same(load_file(file), tensors)
    with safe_open(file, "pt") as opened:
        assert opened.metadata() == {"hash": content_hash(file), "who": "wé"}


@given(TENSORS, st.randoms(use_true_random=False))
@settings(max_examples=40)
def test_a_copy_differs_only_in_the_replaced_tensors(
    tmp_path_factory: pytest.TempPathFactory, tensors: dict[str, Tensor], random: object
) -> None:
    folder = tmp_path_factory.mktemp("copied")
    source, copy = folder / "a.safetensors", folder / "b.safetensors"
    save_file(tensors, source, metadata={"kept": "yes"})
    new = {name: torch.randn(tensors[name].shape) for name in list(tensors)[::2]}
    copy_replacing(source, copy, new.get, lambda _: {"kept": "yes"})
    expected = {**tensors, **{name: v.to(tensors[name].dtype) for name, v in new.items()}}
    assert same(load_file(copy), expected)
    before, after = read_header(source), read_header(copy)
    assert list(before.tensors.items()) == list(after.tensors.items())


def test_a_copy_without_replacements_is_identical(tmp_path: Path) -> None:
    source, copy = tmp_path / "a.safetensors", tmp_path / "b.safetensors"
    save_file({"x": torch.randn(3, 4), "y": torch.arange(3)}, source, metadata={"a": "b"})
    copy_replacing(source, copy, lambda _: None, lambda _: {"a": "b"})
    assert content_hash(copy) == content_hash(source)
    assert load_file(copy)["y"].tolist() == [0, 1, 2]  # int64 is supported for copying only


def test_progress_is_told_and_may_be_broken_off(tmp_path: Path) -> None:
    source = tmp_path / "a.safetensors"
    save_file({**{str(i): torch.randn(40, 5) for i in range(20)}, "none": torch.ones(0)}, source)
    progress = Recorder()
    written = tmp_path / "b.safetensors"
    copy_replacing(source, written, lambda _: None, lambda _: {}, progress)
    counts = progress.counts("saving")
    assert counts == sorted(counts)
    assert progress.updates[-1] == ("saving", 32_000, 32_000)

    with pytest.raises(StopError), appearing(tmp_path / "c.safetensors") as part:
        copy_replacing(source, part, lambda _: None, lambda _: {}, Stopping(9))
    assert sorted(file.name for file in tmp_path.iterdir()) == [source.name, written.name]


def test_a_replacement_of_another_shape_is_refused(tmp_path: Path) -> None:
    source = tmp_path / "a.safetensors"
    save_file({"x": torch.zeros(2, 3)}, source)
    with pytest.raises(ValueError, match=r"tensor 'x' has shape \[2, 3\] in the file, got \[3\]"):
        copy_replacing(source, tmp_path / "b", lambda _: torch.zeros(3), lambda _: {})


def test_tensors_are_converted_and_replaced_while_writing(tmp_path: Path) -> None:
    tensors = {"x": torch.randn(2, 3), "y": torch.randn(4), "z": torch.randn(1).double()}
    new = {"y": torch.arange(4.0)}
    file = tmp_path / "file.safetensors"
    write_converted(file, tensors, torch.float16, lambda _: {}, replacement=new.get)
    assert same(load_file(file), {name: t.half() for name, t in {**tensors, **new}.items()})
    with pytest.raises(ValueError, match=r"tensor 'z' has shape \[1\] in the file, got \[4\]"):
        write_converted(file, tensors, None, lambda _: {}, replacement=lambda _: new["y"])
