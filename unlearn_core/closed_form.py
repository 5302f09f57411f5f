"""Unified Concept Editing (Gandikota et al. 2024): cross-attention solved for in closed form.

A baseline that takes no steps and looks at no picture.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import torch
from torch import Tensor

from .batches import TrainingSets
from .models.protocol import ModelHandle
from .prompts import PromptPairs
from .settings import UCE, UnlearnSettings
from .unlearn import StepReport, UnlearnedModel

ENCODED_AT_ONCE = 64  # prompts
RIDGE = 0.5  # how much the weights want to stay as they are, as in the authors' code
PUNCTUATION = ".,;:!?"
KEYS_AND_VALUES = (".attn2.to_k.weight", ".attn2.to_v.weight")


class ClosedForm:
    """The interface of ``Unlearning`` around an edit that is made at once: no step is reported.

    Raises:
        ValueError: a model without cross-attention.
    """

    def __init__(self, base: ModelHandle, sets: TrainingSets, settings: UnlearnSettings) -> None:
        self.base, self.sets, self.settings = base, sets, settings
        self.names = edited_names(base)

    def __len__(self) -> int:
        return 0

    def __iter__(self) -> Iterator[StepReport]:
        return iter(())

    @torch.no_grad()
    def result(self) -> UnlearnedModel:
        """The edited model; the one given is never changed."""
        model = self.base.trainable_copy(self.names)
        weights = dict(model.named_parameters())
        moved_moved, moved_wanted, kept_kept = _products(self.base, self.sets.pairs)
        ridge = RIDGE * torch.eye(len(kept_kept), dtype=torch.float64)
        keeping = self.settings.retain_weight * kept_kept + ridge
        inputs, outputs = moved_moved + keeping, moved_wanted + keeping  # [D, D]
        # W' = (sum_i W v_i c_i^T + sum_j W c_j c_j^T) (sum_i c_i c_i^T + sum_j c_j c_j^T)^-1
        change = torch.linalg.solve(inputs, outputs)
        for name in self.names:
            weight = weights[name].requires_grad_(False)
            weight.copy_((change @ weight.T.cpu().double()).T)
        return UnlearnedModel(model, self.base, self.sets.pairs, self.settings, ())


def edited_names(model: ModelHandle) -> list[str]:
    """The keys' and values' weights of every cross-attention.

    Raises:
        ValueError: there is none.
    """
    names = [name for name, _ in model.named_parameters() if name.endswith(KEYS_AND_VALUES)]
    if not names:
        raise ValueError(
            f"method {UCE!r} edits cross-attention, which {model.info.name!r} has none of: "
            "choose another"
        )
    return names


def _products(base: ModelHandle, pairs: PromptPairs) -> tuple[Tensor, Tensor, Tensor]:
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
    shorter = base.encode_prompts(prefixes).values
    longer = base.encode_prompts([f"{prefix} a" for prefix in prefixes]).values
    differs = (shorter - longer).abs().amax(-1) > 1e-4  # [N, L]; none beyond what the model reads
    ends = torch.where(differs.any(1), differs.int().argmax(1), differs.shape[1])
    return (ends - 1).tolist()
