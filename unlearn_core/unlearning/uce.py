"""Unified Concept Editing (Gandikota et al. 2024): cross-attention solved for in closed form.

It takes no steps and looks at no picture: a method of its own, and a good place to begin from.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence

import torch
from torch import Tensor

from ..dataset.rows import TrainingSets
from ..models.protocol import ModelHandle
from ..prompts.pairs import PromptPairs
from .results import StepReport, UnlearnedModel
from .settings import UCE, UnlearnSettings

ENCODED_AT_ONCE = 64  # prompts
RIDGE = 0.5  # how much the weights want to stay as they are, as in the authors' code
PUNCTUATION = ".,;:!?"
OnPair = Callable[[int, int], None]  # (done, total) of the pairs of prompts
KEYS_AND_VALUES = (".attn2.to_k.weight", ".attn2.to_v.weight")


def edits(
    base: ModelHandle, pairs: PromptPairs, retain_weight: float, on_pair: OnPair | None = None
) -> dict[str, Tensor]:
    """By name, the keys' and values' weights of every cross-attention after the edit.

    Args:
        retain_weight: how much the prompts that are to stay as they are count.
        on_pair: progress in pairs of prompts, called after each batch.

    Raises:
        ValueError: a model without cross-attention.
    """
    names = edited_names(base)
    moved_moved, moved_wanted, kept_kept = _products(base, pairs, on_pair)
    keeping = retain_weight * kept_kept + RIDGE * torch.eye(len(kept_kept), dtype=torch.float64)
    inputs, outputs = moved_moved + keeping, moved_wanted + keeping  # [D, D]
    # W' = (sum_i W v_i c_i^T + sum_j W c_j c_j^T) (sum_i c_i c_i^T + sum_j c_j c_j^T)^-1
    change = torch.linalg.solve(inputs, outputs)
    weights = dict(base.named_parameters())
    return {name: (change @ weights[name].detach().T.cpu().double()).T for name in names}


@torch.no_grad()
def warm_up(
    model: ModelHandle,
    trained: Sequence[Tensor],
    base: ModelHandle,
    pairs: PromptPairs,
    retain_weight: float,
    on_pair: OnPair | None = None,
) -> None:
    """Let ``model``, a trainable copy of ``base``, begin from the edit, as far as the weights that
    it concerns are among those ``trained``."""
    mine = {id(parameter) for parameter in trained}
    weights = dict(model.named_parameters())
    names = [name for name in keys_and_values(model) if id(weights[name]) in mine]
    if not names:
        return
    edited = edits(base, pairs, retain_weight, on_pair)
    for name in names:
        weights[name].copy_(edited[name])


def keys_and_values(model: ModelHandle) -> list[str]:
    """Names of the keys' and values' weights of every cross-attention; none where there is none."""
    return [name for name, _ in model.named_parameters() if name.endswith(KEYS_AND_VALUES)]


def edited_names(model: ModelHandle) -> list[str]:
    """What ``edits`` changes.

    Raises:
        ValueError: there is nothing.
    """
    names = keys_and_values(model)
    if not names:
        raise ValueError(
            f"method {UCE!r} edits cross-attention, which {model.info.name!r} has none of: "
            "choose another"
        )
    return names


def _products(
    base: ModelHandle, pairs: PromptPairs, on_pair: OnPair | None
) -> tuple[Tensor, Tensor, Tensor]:
    """Of token embeddings to edit, what each should act like, and those to keep: ``m^T m``,
    ``m^T w`` and ``k^T k``, [D, D] each.

    The last token of the concept should act like the last token of what stands in its place, and
    so on to the end of the prompt, as in the authors' code.
    """
    train = [pair for part in pairs.each for pair in part.train]
    sums: list[Tensor] = []
    for start in range(0, len(train), ENCODED_AT_ONCE):
        chunk = train[start : start + ENCODED_AT_ONCE]
        prefixes = [_before_shared_end(pair.forget, pair.retain) for pair in chunk]
        forget, retain = (
            base.encode_prompts(prompts).values.cpu().double()  # [N, L, D]
            for prompts in ([pair.forget for pair in chunk], [pair.retain for pair in chunk])
        )
        last_forget, last_retain = (_last_token(base, side) for side in zip(*prefixes, strict=True))
        moved, wanted = [], []
        for f, r, i, j in zip(forget, retain, last_forget, last_retain, strict=True):
            length = len(f) - max(i, j)
            moved.append(f[i : i + length])
            wanted.append(r[j : j + length])
        m, w, k = torch.cat(moved), torch.cat(wanted), retain.flatten(0, 1)
        found = [m.T @ m, m.T @ w, k.T @ k]
        sums = [a + b for a, b in zip(sums, found, strict=True)] if sums else found
        if on_pair is not None:
            on_pair(start + len(chunk), len(train))
    moved_moved, moved_wanted, kept_kept = sums
    return moved_moved, moved_wanted, kept_kept


def _before_shared_end(forget: str, retain: str) -> tuple[str, str]:
    """Both prompts up to the words that they end on alike: up to the concept and what stands in its
    place."""
    left, right = forget.split(), retain.split()
    while left and right and left[-1] == right[-1]:
        left.pop()
        right.pop()
    return " ".join(left).rstrip(PUNCTUATION), " ".join(right).rstrip(PUNCTUATION)


def _last_token(base: ModelHandle, prefixes: Sequence[str]) -> list[int]:
    """Where the last token of each prefix stands in a prompt that begins with it. CLIP looks
    backward only, so that one more word changes nothing before itself."""
    different = list(dict.fromkeys(prefixes))
    shorter = base.encode_prompts(different).values
    longer = base.encode_prompts([f"{prefix} a" for prefix in different]).values
    differs = (shorter - longer).abs().amax(-1) > 1e-4  # [N, L]; none beyond what the model reads
    ends = torch.where(differs.any(1), differs.int().argmax(1), differs.shape[1])
    found = dict(zip(different, (ends - 1).tolist(), strict=True))
    return [found[prefix] for prefix in prefixes]


class ClosedForm:
    """UCE, an edit that is made at once: no step is reported. The model given is never changed.

    Raises:
        ValueError: a model without cross-attention.
    """

    @torch.no_grad()
    def __init__(
        self,
        base: ModelHandle,
        sets: TrainingSets,
        settings: UnlearnSettings,
        on_pair: OnPair | None = None,
    ) -> None:
        self.base, self.sets, self.settings = base, sets, settings
        self.model = base.trainable_copy(edited_names(base))
        weights = dict(self.model.named_parameters())
        for name, weight in edits(base, sets.pairs, settings.retain_weight, on_pair).items():
            weights[name].requires_grad_(False).copy_(weight)

    def __len__(self) -> int:
        return 0

    def __iter__(self) -> Iterator[StepReport]:
        return iter(())

    def result(self) -> UnlearnedModel:
        return UnlearnedModel(self.model, self.base, self.sets.pairs, self.settings, ())
