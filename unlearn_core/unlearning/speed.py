"""SPEED (Li et al. 2025, arXiv 2503.07392): a closed-form edit of the values of cross-attention
within the null space of the embeddings that it would otherwise disturb.

Notation, with embeddings as columns: ``C_1`` the concept's tokens, ``C_*`` those of their
replacements, ``P`` the projector on the null space, ``K_2`` embeddings that must not change at all.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from ..foundation.progress import FIRST_EDIT, Progress
from ..models.errors import UnsupportedError
from ..models.protocol import TOKENS, ModelHandle
from ..prompts.pairs import PromptPairs
from .prompt_products import ENCODED_AT_ONCE, edited_embeddings
from .settings import SPEED, UnlearnSettings
from .uce import refuse_non_finite

VALUES = ".attn2.to_v.weight"
NULL = 0.1  # singular values below it belong to the null space
COPIES = 10  # noisy copies of each preserved embedding
CENTRES = 3  # of the empty prompt's tokens
PRIOR_RIDGE = 0.5  # lambda; the pull on ``K_2`` is its inverse


@torch.no_grad()
def speed_edits(
    base: ModelHandle, pairs: PromptPairs, settings: UnlearnSettings, progress: Progress
) -> dict[str, Tensor]:
    """The values of cross-attention after the edit, in fp64, by name. ``retain_weight`` is the
    paper's ``rho``.

    Raises:
        ValueError: the model has no such weights, or the edit is not finite.
    """
    weights = {
        name: weight.detach().cpu().double()
        for name, weight in base.named_parameters()
        if name.endswith(VALUES)
    }
    if not weights:
        raise UnsupportedError(
            f"method {SPEED!r} edits the values of cross-attention, which {base.info.name!r} does "
            "not have; choose another method"
        )
    targets, anchors, preserved = _embeddings(base, pairs, settings.uce_tokens, progress)
    prior = prior_embeddings(base)
    edited = {}
    for name, weight in weights.items():
        progress.check()
        kept = influenced(weight, targets, anchors, preserved, settings.retain_weight)
        edited[name] = weight + constrained_change(
            weight, targets, anchors, null_projector(kept), prior, settings.retain_weight
        )
    refuse_non_finite((name, weight.float()) for name, weight in edited.items())
    return edited


def influenced(
    weight: Tensor, targets: Tensor, anchors: Tensor, preserved: Tensor, ridge: float
) -> Tensor:
    """The preserved embeddings that an unrestricted edit changes more than their mean, and of
    their noisy copies those that it changes more than the copies' mean, [M, D].

    The noise lies along the direction in which ``weight`` changes least.

    Args:
        preserved: [N, D].
    """
    identity = torch.eye(weight.shape[1], dtype=weight.dtype)
    everywhere = constrained_change(
        weight, targets, anchors, identity, preserved.new_zeros(1, len(identity)), ridge
    )
    rows = _most_changed(preserved, everywhere)
    weakest = torch.linalg.svd(weight, full_matrices=True).Vh[-1]
    generator = torch.Generator().manual_seed(0)
    noise = torch.randn(COPIES, *rows.shape, generator=generator, dtype=rows.dtype)
    copies = rows + (noise @ weakest).unsqueeze(-1) * weakest
    return torch.cat([rows, _most_changed(copies.flatten(0, 1), everywhere)])


def null_projector(rows: Tensor) -> Tensor:
    """``P``, [D, D]: the projector on the eigenvectors of the mean of ``c c^T`` over the rows whose
    eigenvalue is below ``NULL``."""
    values, vectors = torch.linalg.eigh(rows.T @ rows / len(rows))
    null = vectors[:, values < NULL]
    return null @ null.T


def constrained_change(
    weight: Tensor, targets: Tensor, anchors: Tensor, projector: Tensor, prior: Tensor, ridge: float
) -> Tensor:
    """The change ``D = D P`` of ``weight`` that minimises the mean of ``|(W + D) c_1 - W c_*|^2``
    plus ``rho |D|^2 + |D K_2|^2 / lambda``:

    ``W (S_* - S_1) P [I - M K_2 (K_2^T P M K_2 + lambda I)^-1 K_2^T P] M`` with
    ``S_1 = mean c_1 c_1^T``, ``S_* = mean c_* c_1^T`` and ``M = (S_1 P + rho I)^-1``.

    Args:
        weight: ``W`` [out, D].
        targets, anchors: ``c_1`` and, row by row, ``c_*``, [N, D] each.
        projector: ``P``.
        prior: ``K_2^T`` [K, D].
        ridge: ``rho``.
    """
    of_targets = targets.T @ targets / len(targets)
    of_anchors = anchors.T @ targets / len(targets)
    identity = torch.eye(len(projector), dtype=weight.dtype)
    free = weight @ (of_anchors - of_targets) @ projector
    inverse = torch.linalg.inv(of_targets @ projector + ridge * identity)
    fixed = inverse @ prior.T  # M K_2
    system = prior @ projector @ fixed
    system = system + PRIOR_RIDGE * torch.eye(len(prior), dtype=weight.dtype)
    bracket = identity - fixed @ torch.linalg.solve(system, prior @ projector)
    return free @ bracket @ inverse


def prior_embeddings(base: ModelHandle) -> Tensor:
    """``K_2^T``, [1 + CENTRES, D]: the first token of every prompt, and centres of the empty
    prompt's other tokens."""
    rows = base.encode_prompts([""]).text_inputs()[TOKENS][0].cpu().double()
    return torch.cat([rows[:1], _centres(rows[1:], CENTRES)])


def _embeddings(
    base: ModelHandle, pairs: PromptPairs, tokens: str, progress: Progress
) -> tuple[Tensor, Tensor, Tensor]:
    """The concept's tokens, their counterparts, and the tokens to preserve, [N, D] each."""
    train = [pair for part in pairs.each for pair in part.train]
    parts: list[Sequence[Tensor]] = []
    with progress.phase(FIRST_EDIT, len(train)):
        for start in range(0, len(train), ENCODED_AT_ONCE):
            chunk = train[start : start + ENCODED_AT_ONCE]
            parts.append(edited_embeddings(base, chunk, tokens, TOKENS))
            progress.tick(len(chunk))
    targets, anchors, preserved = (torch.cat(rows) for rows in zip(*parts, strict=True))
    return targets, anchors, torch.cat([anchors, preserved])


def _most_changed(rows: Tensor, change: Tensor) -> Tensor:
    """The rows that a change of the weight moves by more than the mean, or by as much."""
    distances = (rows @ change.T).norm(dim=-1)
    return rows[distances >= distances.mean()]


def _centres(rows: Tensor, count: int, rounds: int = 20) -> Tensor:
    """The centres of k-means (Lloyd 1982), started from evenly spaced rows."""
    centres = rows[torch.linspace(0, len(rows) - 1, count).long()]
    for _ in range(rounds):
        nearest = torch.cdist(rows, centres).argmin(1)
        centres = torch.stack(
            [
                rows[nearest == i].mean(0) if (nearest == i).any() else centres[i]
                for i in range(count)
            ]
        )
    return centres
