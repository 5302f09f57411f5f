"""After CASE (arXiv 2605.25765): a closed-form edit built from what cross-attention puts into the
pictures of the concept, instead of from prompt embeddings.

While the model draws prompts with and without the concept, the outputs of each layer are recorded
before their projection and averaged over the picture. ``P_F`` and ``P_R`` project on the principal
directions of these rows. The keys and values are multiplied by ``E = I - P_F (I - P_R)``, which
removes the concept's directions and leaves those of everything else unchanged.

The number of sampling steps, of pictures and the threshold of the concept's directions could not be
read in the paper.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from typing import Any

import torch
from torch import Tensor

from ..dataset.settings import GenerationSettings
from ..foundation.cost import TRAINING
from ..foundation.progress import FIRST_EDIT, Progress
from ..models.errors import UnsupportedError
from ..models.layers import keys_and_values
from ..models.protocol import ModelHandle
from ..models.stable_diffusion import StableDiffusionHandle
from ..prompts.pairs import PromptPairs
from .settings import CASE, UnlearnSettings
from .uce import refuse_non_finite

OUTPUT = ".to_out.0"  # its input is the attention's output before the projection
MOST_PROMPTS = 50  # of each kind
STEPS, AT_ONCE = 10, 10  # sampling steps, and prompts drawn together
CONCEPT_VARIANCE = 0.95  # share that the concept's directions explain, tau_F
Rows = dict[str, list[Tensor]]
"""Attention layer -> recorded rows, [B, inner] for each denoiser pass."""


@torch.no_grad()
def case_edits(
    base: ModelHandle, pairs: PromptPairs, settings: UnlearnSettings, progress: Progress
) -> dict[str, Tensor]:
    """The keys and values of cross-attention after the edit, in fp64, by name. ``retain_weight``
    is ``tau_R``, the share of the variance that the preserved directions explain.

    Raises:
        ValueError: the model has no such weights, a weight above 1, or the edit is not finite.
    """
    weights = dict(base.named_parameters())
    names = keys_and_values(list(weights))
    if not names or not isinstance(base, StableDiffusionHandle):
        raise UnsupportedError(
            f"method {CASE!r} observes the cross-attention of a model from Load Model, which "
            f"{base.info.name!r} does not have; choose another method"
        )
    if settings.retain_weight > 1:
        raise ValueError(
            f"retain_weight must be at most 1 for method {CASE!r}, got {settings.retain_weight!r}; "
            "it is a share"
        )
    train = [pair for part in pairs.each for pair in part.train]
    sides = ([pair.forget for pair in train], [pair.retain for pair in train])
    prompts = [list(dict.fromkeys(side))[:MOST_PROMPTS] for side in sides]
    with progress.phase(FIRST_EDIT, sum(map(len, prompts))):
        forget, retain = (attention_outputs(base, each, progress) for each in prompts)
    edited = {}
    for name in names:
        layer = name.rpartition(".to_")[0]
        eraser = erasing(forget[layer], retain[layer], settings.retain_weight)
        edited[name] = eraser @ weights[name].detach().cpu().double()
    refuse_non_finite((name, weight.float()) for name, weight in edited.items())
    return edited


def erasing(forget: Tensor, retain: Tensor, retained_variance: float) -> Tensor:
    """``E = I - P_F (I - P_R)``, [D, D]: the matrix closest to ``I - P_F`` that is the identity on
    the preserved directions.

    Args:
        forget, retain: rows of outputs with and without the concept, [N, D].
        retained_variance: ``tau_R``.
    """
    identity = torch.eye(forget.shape[1], dtype=forget.dtype)
    concept = principal_projector(forget, CONCEPT_VARIANCE)
    return identity - concept @ (identity - principal_projector(retain, retained_variance))


def principal_projector(rows: Tensor, variance: float) -> Tensor:
    """The projector [D, D] on the fewest right singular vectors whose squared singular values sum
    up to this share of all."""
    _, values, vectors = torch.linalg.svd(rows, full_matrices=False)
    shares = values.square().cumsum(0) / values.square().sum()
    count = int((shares < variance).sum()) + 1 if variance > 0 else 0
    principal = vectors[:count]
    return principal.T @ principal


def attention_outputs(
    base: StableDiffusionHandle, prompts: Sequence[str], progress: Progress
) -> dict[str, Tensor]:
    """For each cross-attention layer the outputs while the prompts are drawn, averaged over the
    picture: one row per prompt and step, [N, inner], in fp64 on the CPU."""
    guidance = GenerationSettings().guidance_scale
    passes = base.passes_per_step(guidance)
    with recorded(base.denoiser, passes) as rows:
        for start in range(0, len(prompts), AT_ONCE):
            chunk = prompts[start : start + AT_ONCE]
            progress.count_passes(len(chunk) * STEPS * passes, TRAINING)
            base.sample(
                chunk,
                range(start, start + len(chunk)),
                steps=STEPS,
                guidance_scale=guidance,
                progress=progress,
            )
            progress.tick(len(chunk))
    return {layer: torch.cat(parts) for layer, parts in rows.items()}


@contextmanager
def recorded(denoiser: Any, passes: int) -> Iterator[Rows]:
    """Record the outputs of every cross-attention layer within this context.

    Args:
        passes: denoiser passes per picture and step; the last of them is that of the prompt.
    """
    rows: Rows = {}
    with ExitStack() as hooks:
        for name in keys_and_values([name for name, _ in denoiser.named_parameters()]):
            layer = name.rpartition(".to_")[0]
            if layer in rows:
                continue
            rows[layer] = parts = []

            def record(
                module: Any, inputs: tuple[Tensor, ...], parts: list[Tensor] = parts
            ) -> None:
                means = inputs[0].mean(1).chunk(passes)[-1]
                parts.append(means.cpu().double())

            handle = denoiser.get_submodule(layer + OUTPUT).register_forward_pre_hook(record)
            hooks.callback(handle.remove)
        yield rows
