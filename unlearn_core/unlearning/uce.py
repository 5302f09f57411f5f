"""Unified Concept Editing (Gandikota et al. 2024): a closed-form edit of the weights that read the
prompt, as a rule the keys and values of cross-attention.

It needs no training steps and no pictures. It is a method of its own and a good starting point for
the others.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Sequence

import torch
from torch import Tensor

from ..dataset.rows import TrainingSets
from ..foundation.progress import FIRST_EDIT, Progress
from ..models.protocol import TOKENS, ModelHandle
from ..prompts.pairs import PromptPair, PromptPairs
from .results import StepReport, UnlearnedModel
from .settings import LAST_TOKEN, UCE, UnlearnSettings

ENCODED_AT_ONCE = 16  # pairs of prompts; few enough that progress and Cancel follow soon
RIDGE = 0.5  # pull of the weights towards their original values, as in the authors' code
PUNCTUATION = ".,;:!?"


def edits(
    base: ModelHandle,
    pairs: PromptPairs,
    retain_weight: float,
    tokens: str,
    progress: Progress | None = None,
) -> dict[str, Tensor]:
    """The weights of ``text_projections`` after the edit, by name.

    Args:
        retain_weight: weight of the preserved prompts.
        tokens: one of ``UCE_TOKENS``: the tokens that the edit changes.
        progress: ticks once per pair of prompts.

    Raises:
        ValueError: the model has no such weights.
    """
    matrices = changes(base, pairs, retain_weight, tokens, progress)
    weights = dict(base.named_parameters())
    return {
        name: (matrices[text_input] @ weights[name].detach().T.cpu().double()).T
        for name, text_input in edited_names(base).items()
    }


def changes(
    base: ModelHandle,
    pairs: PromptPairs,
    retain_weight: float,
    tokens: str,
    progress: Progress | None = None,
) -> dict[str, Tensor]:
    """For each text input the matrix [D, D], in fp64, whose product with ``W^T`` is ``W'^T``, for
    every weight ``W`` that reads this input. The arguments and errors are those of ``edits``."""
    text_inputs = set(edited_names(base).values())
    products = _products(base, pairs, tokens, text_inputs, progress or Progress())
    return {name: _change(*sums, retain_weight) for name, sums in products.items()}


def _change(sources: Tensor, targets: Tensor, preserved: Tensor, retain_weight: float) -> Tensor:
    """The matrix [D, D] whose product with ``W^T`` is ``W'^T``, where
    ``W' = (sum_i W v_i c_i^T + sum_j W c_j c_j^T) (sum_i c_i c_i^T + sum_j c_j c_j^T)^-1``."""
    fixed = retain_weight * preserved + RIDGE * torch.eye(len(preserved), dtype=torch.float64)
    return torch.linalg.solve(sources + fixed, targets + fixed)


@torch.no_grad()
def warm_up(
    model: ModelHandle,
    trained: Sequence[Tensor],
    base: ModelHandle,
    pairs: PromptPairs,
    retain_weight: float,
    tokens: str,
    progress: Progress | None = None,
) -> None:
    """Copy the edit into ``model``, a trainable copy of ``base``; only weights in ``trained``
    change."""
    trained_ids = {id(parameter) for parameter in trained}
    weights = dict(model.named_parameters())
    names = [name for name in model.text_projections() if id(weights[name]) in trained_ids]
    if not names:
        return
    edited = edits(base, pairs, retain_weight, tokens, progress)
    for name in names:
        weights[name].copy_(edited[name])


def edited_names(model: ModelHandle) -> dict[str, str]:
    """The weights that ``edits`` changes and the text input of each.

    Raises:
        ValueError: the model has no such weights.
    """
    names = model.text_projections()
    if not names:
        raise ValueError(
            f"method {UCE!r} needs layers that read the words of a prompt one by one, such as "
            f"cross-attention, which {model.info.name!r} does not have; choose another method"
        )
    return names


def _products(
    base: ModelHandle,
    pairs: PromptPairs,
    tokens: str,
    text_inputs: Collection[str],
    progress: Progress,
) -> dict[str, tuple[Tensor, Tensor, Tensor]]:
    """For each text input ``m^T m``, ``m^T w`` and ``k^T k``, [D, D] each. The rows of ``m`` are
    embeddings to edit, the rows of ``w`` their targets, and the rows of ``k`` embeddings to
    preserve.

    ``to the end`` (the authors' code of 2023): the concept's last token is mapped to the last token
    of its replacement, and each later token to its counterpart, to the end of the prompt. All
    tokens of the retain prompts are preserved. ``last token`` (their code since April 2025): only
    the concept's last token is edited, and only the last token of each retain prompt is preserved.
    An input with one embedding per prompt is mapped to that of the parallel prompt.
    """
    train = [pair for part in pairs.each for pair in part.train]
    zero = torch.zeros((), dtype=torch.float64)
    sums = {name: (zero, zero, zero) for name in text_inputs}
    with progress.phase(FIRST_EDIT, len(train)):
        for start in range(0, len(train), ENCODED_AT_ONCE):
            chunk = train[start : start + ENCODED_AT_ONCE]
            for name in text_inputs:
                m, w, k = sums[name]
                more_m, more_w, more_k = _products_of(base, chunk, tokens, name)
                sums[name] = (m + more_m, w + more_w, k + more_k)
            progress.tick(len(chunk))
    return sums


def _products_of(
    base: ModelHandle, pairs: Sequence[PromptPair], tokens: str, text_input: str
) -> tuple[Tensor, Tensor, Tensor]:
    prefixes = [_before_shared_end(pair.forget, pair.retain) for pair in pairs]
    forget, retain = (
        torch.stack(list(base.encode_prompts(prompts).text_inputs()[text_input])).cpu().double()
        for prompts in ([pair.forget for pair in pairs], [pair.retain for pair in pairs])
    )  # [N, L, D]
    if text_input != TOKENS:
        m, w = forget.flatten(0, 1), retain.flatten(0, 1)
        return m.T @ m, m.T @ w, w.T @ w
    last_forget, last_retain = (_last_token(base, side) for side in zip(*prefixes, strict=True))
    sources, targets = [], []
    for f, r, i, j in zip(forget, retain, last_forget, last_retain, strict=True):
        length = 1 if tokens == LAST_TOKEN else len(f) - max(i, j)
        sources.append(f[i : i + length])
        targets.append(r[j : j + length])
    m, w, k = torch.cat(sources), torch.cat(targets), retain.flatten(0, 1)
    if tokens == LAST_TOKEN:
        ends = _last_token(base, [pair.retain for pair in pairs])
        k = torch.stack([r[end] for r, end in zip(retain, ends, strict=True)])
    return m.T @ m, m.T @ w, k.T @ k


def _before_shared_end(forget: str, retain: str) -> tuple[str, str]:
    """Both prompts without their common ending: the first then ends with the concept, the second
    with its replacement."""
    left, right = forget.split(), retain.split()
    while left and right and left[-1] == right[-1]:
        left.pop()
        right.pop()
    return " ".join(left).rstrip(PUNCTUATION), " ".join(right).rstrip(PUNCTUATION)


def _last_token(base: ModelHandle, prefixes: Sequence[str]) -> list[int]:
    """Position of each prefix's last token in a prompt that begins with it. CLIP's attention is
    causal: another word at the end changes only the embeddings from its own position on."""
    unique = list(dict.fromkeys(prefixes))
    shorter, longer = (
        torch.stack(list(base.encode_prompts(prompts).text_inputs()[TOKENS]))
        for prompts in (unique, [f"{prefix} a" for prefix in unique])
    )
    differs = (shorter - longer).abs().amax(-1) > 1e-4  # [N, L]; all False if longer is truncated
    ends = torch.where(differs.any(1), differs.int().argmax(1), differs.shape[1])
    positions = dict(zip(unique, (ends - 1).tolist(), strict=True))
    return [positions[prefix] for prefix in prefixes]


class ClosedForm:
    """A UCE run: one immediate edit, without step reports. ``base`` is never changed.

    Raises:
        ValueError: the model has no weights that read the prompt.
    """

    @torch.no_grad()
    def __init__(
        self,
        base: ModelHandle,
        sets: TrainingSets,
        settings: UnlearnSettings,
        progress: Progress | None = None,
    ) -> None:
        self.base, self.sets, self.settings = base, sets, settings
        self.model = base.trainable_copy(list(edited_names(base)))
        weights = dict(self.model.named_parameters())
        edited = edits(base, sets.pairs, settings.retain_weight, settings.uce_tokens, progress)
        for name, weight in edited.items():
            weights[name].requires_grad_(False).copy_(weight)

    def __len__(self) -> int:
        return 0

    def __iter__(self) -> Iterator[StepReport]:
        return iter(())

    def result(self) -> UnlearnedModel:
        return UnlearnedModel(self.model, self.base, self.sets.pairs, self.settings, ())
