"""Pieces of lists of tensors: each element once, in order, for any sizes."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from benchmarks.live_bytes import peak_bytes
from unlearn_core.unlearning import pieces as module
from unlearn_core.unlearning.optimizer import RestrictedAdam
from unlearn_core.unlearning.pieces import pieces
from unlearn_core.unlearning.rules import gram, restricted


@given(st.lists(st.integers(0, 12), max_size=8), st.data())
def test_they_contain_every_element_once(sizes: list[int], data: st.DataObject) -> None:
    tensors = [torch.randn(size) for size in sizes]
    whole = data.draw(st.lists(st.booleans(), min_size=len(sizes), max_size=len(sizes)))
    whole = [alone and size > 0 for alone, size in zip(whole, sizes, strict=True)]
    joined = torch.cat([torch.zeros(0), *tensors])
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(module, "ON_CPU", 5)
        found = list(pieces(tensors, whole))
    assert all(torch.equal(joined[piece.span], piece.flat(tensors)) for piece in found)
    assert [i for piece in found for i in range(len(joined))[piece.span]] == [*range(len(joined))]
    for piece in found:
        alone = any(whole[piece.first : piece.last])
        assert (
            (piece.last == piece.first + 1 and piece.part is None)
            if alone
            else (piece.span.stop - piece.span.start <= 5)
        )
        piece.add(tensors, joined[piece.span])
    assert torch.equal(torch.cat([torch.zeros(0), *tensors]), 2 * joined)


def test_only_contiguous_tensors_are_split(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "ON_CPU", 5)
    tensor = torch.arange(12.0).view(3, 4).T
    (piece,) = pieces([tensor])
    assert torch.equal(piece.flat([tensor]), tensor.flatten())
    piece.add([tensor], torch.ones(12))
    assert tensor.sum() == 78


def gradients(seed: int) -> list[Tensor]:
    generator = torch.Generator().manual_seed(seed)
    return [torch.randn(shape, generator=generator) for shape in [(700, 300), (3,), (40, 5)]]


@pytest.mark.parametrize("restrict", [False, True])
def test_a_step_does_not_depend_on_the_pieces(
    restrict: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    results = []
    for most in (2**30, 1000):
        monkeypatch.setattr(module, "ON_CPU", most)
        parameters = gradients(0)
        optimizer = RestrictedAdam(parameters, weight_decay=0.1)
        for step in range(3):
            f, r = gradients(2 * step + 1), gradients(2 * step + 2)
            products = gram(f, r)
            optimizer.step(f, r, products, restricted(products, 2), 1e-3, restrict=restrict)
        results.append(parameters)
    torch.testing.assert_close(*results, rtol=1e-5, atol=1e-6)


def test_a_step_needs_little_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    """Much less than another set of gradients."""
    monkeypatch.setattr(module, "ON_CPU", 1000)
    f, r, parameters = gradients(1), gradients(2), gradients(3)
    optimizer = RestrictedAdam(parameters)

    def step() -> None:
        products = gram(f, r)
        optimizer.step(f, r, products, restricted(products, 2), 1e-3, restrict=True)

    assert peak_bytes(step, torch.device("cpu")) < 0.1 * 4 * sum(p.numel() for p in parameters)
