"""Second moments of prompt embeddings: all that the closed-form edit and the protection of prompts
need of the training prompts."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from ..foundation.progress import FIRST_EDIT, Progress
from ..models.prompt_syntax import closed
from ..models.protocol import TOKENS, ModelHandle
from ..prompts.pairs import PromptPair, PromptPairs
from .settings import LAST_TOKEN

ENCODED_AT_ONCE = 16  # pairs of prompts; few enough that progress and Cancel follow soon
PUNCTUATION = ".,;:!?"


@dataclass(frozen=True, eq=False)
class Products:
    """Sums over the training prompts for one text input, [D, D] each, in fp64.

    Attributes:
        edited: ``m^T m``; the rows of ``m`` are the embeddings to edit.
        mapped: ``m^T w``; the rows of ``w`` are their targets.
        preserved: ``k^T k``; the rows of ``k`` are the embeddings to preserve.
    """

    edited: Tensor
    mapped: Tensor
    preserved: Tensor

    @property
    def identity(self) -> Tensor:
        return torch.eye(len(self.preserved), dtype=self.preserved.dtype)

    def __add__(self, other: Products) -> Products:
        return Products(
            self.edited + other.edited,
            self.mapped + other.mapped,
            self.preserved + other.preserved,
        )


def prompt_products(
    base: ModelHandle,
    pairs: PromptPairs,
    tokens: str,
    text_inputs: Collection[str],
    progress: Progress,
) -> dict[str, Products]:
    """The products of each text input.

    ``to the end`` (UCE's code of 2023): the concept's last token is mapped to the last token of its
    replacement, and each later token to its counterpart, to the end of the prompt. All tokens of
    the retain prompts are preserved. ``last token`` (their code since April 2025): only the
    concept's last token is edited, and only the last token of each retain prompt is preserved. An
    input with one embedding per prompt is mapped to that of the parallel prompt.

    Args:
        tokens: one of ``UCE_TOKENS``.
        progress: ticks once per pair of prompts.
    """
    train = [pair for part in pairs.each for pair in part.train]
    zero = Products(*[torch.zeros((), dtype=torch.float64)] * 3)
    sums = dict.fromkeys(text_inputs, zero)
    with progress.phase(FIRST_EDIT, len(train)):
        for start in range(0, len(train), ENCODED_AT_ONCE):
            chunk = train[start : start + ENCODED_AT_ONCE]
            for name in text_inputs:
                sums[name] += _products_of(base, chunk, tokens, name)
            progress.tick(len(chunk))
    return sums


def _products_of(
    base: ModelHandle, pairs: Sequence[PromptPair], tokens: str, text_input: str
) -> Products:
    m, w, k = edited_embeddings(base, pairs, tokens, text_input)
    return Products(m.T @ m, m.T @ w, k.T @ k)


def edited_embeddings(
    base: ModelHandle, pairs: Sequence[PromptPair], tokens: str, text_input: str
) -> tuple[Tensor, Tensor, Tensor]:
    """The embeddings to edit and, row by row, their targets; then those to preserve, [N, D] each,
    in fp64 on the CPU. ``prompt_products`` describes which they are."""
    prefixes = [_before_shared_end(pair.forget, pair.retain) for pair in pairs]
    forget, retain = (
        [row.cpu().double() for row in base.encode_prompts(prompts).text_inputs()[text_input]]
        for prompts in ([pair.forget for pair in pairs], [pair.retain for pair in pairs])
    )  # [L, D] each; long prompts have more rows
    if text_input != TOKENS:
        m, w = torch.cat(forget), torch.cat(retain)
        return m, w, w
    last_forget, last_retain = (_last_token(base, side) for side in zip(*prefixes, strict=True))
    sources, targets = [], []
    for f, r, i, j in zip(forget, retain, last_forget, last_retain, strict=True):
        length = 1 if tokens == LAST_TOKEN else min(len(f) - i, len(r) - j)
        sources.append(f[i : i + length])
        targets.append(r[j : j + length])
    m, w, k = torch.cat(sources), torch.cat(targets), torch.cat(retain)
    if tokens == LAST_TOKEN:
        ends = _last_token(base, [pair.retain for pair in pairs])
        k = torch.stack([r[end] for r, end in zip(retain, ends, strict=True)])
    return m, w, k


def _before_shared_end(forget: str, retain: str) -> tuple[str, str]:
    """Both prompts without their common ending: the first then ends with the concept, the second
    with its replacement."""
    left, right = forget.split(), retain.split()
    while left and right and left[-1] == right[-1]:
        left.pop()
        right.pop()
    ends = (" ".join(words).rstrip(PUNCTUATION) for words in (left, right))
    first, second = map(closed, ends)
    return first, second


def _last_token(base: ModelHandle, prefixes: Sequence[str]) -> list[int]:
    """Position of each prefix's last token in a prompt that begins with it. CLIP's attention is
    causal: another word at the end changes only the embeddings from its own position on."""
    unique = list(dict.fromkeys(prefixes))
    shorter, longer = (
        base.encode_prompts(prompts).text_inputs()[TOKENS]
        for prompts in (unique, [f"{prefix} a" for prefix in unique])
    )
    positions = {
        prefix: _first_difference(a, b) - 1
        for prefix, a, b in zip(unique, shorter, longer, strict=True)
    }
    return [positions[prefix] for prefix in prefixes]


def _first_difference(a: Tensor, b: Tensor) -> int:
    """The first row in which [L, D] and [M, D] differ; the shorter length if there is none, because
    the further word begins a new chunk or is truncated."""
    length = min(len(a), len(b))
    differs = (a[:length] - b[:length]).abs().amax(-1) > 1e-4
    return int(differs.int().argmax()) if differs.any() else length
