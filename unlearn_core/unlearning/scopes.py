"""Trainable scopes: the parameters that unlearning may change, by the name of the scope."""

from __future__ import annotations

from torch import nn

from ..models.errors import UnsupportedError
from ..models.layers import AUTO, LOW_RANK, LOW_RANK_OF, SCOPES
from ..models.protocol import ModelHandle
from ..models.weights import is_lora
from .settings import UnlearnSettings


def parameter_names(model: ModelHandle, scope: str) -> list[str]:
    """Names of the parameters in ``scope``, in the model's own order.

    Raises:
        ValueError: unknown scope, or a scope that is empty in this model.
    """
    if scope not in SCOPES:
        raise ValueError(f"scope must be one of {', '.join(SCOPES)}, got {scope!r}")
    names = model.parameters_in(model.default_scope if scope == AUTO else scope)
    if not names:
        possible = [other for other in SCOPES if model.parameters_in(other)]
        raise UnsupportedError(
            f"scope {scope!r} does not exist in {model.info.name!r}, a {model.info.family} model; "
            f"choose {AUTO!r}, or one of: {'; '.join(possible)}"
        )
    return names


def smaller_scope(model: ModelHandle, settings: UnlearnSettings) -> str | None:
    """The low-rank scope that can take the place of the chosen one where memory is short; None if
    there is none.

    Args:
        settings: without automatic values.
    """
    smaller = LOW_RANK_OF.get(settings.scope)
    # A saliency mask selects weights, which low-rank layers leave as they are. And these layers do
    # not harden: on the demo model, the concept came back as without.
    possible = settings.saliency == 1 and not settings.harden
    suits = smaller is not None and possible and model.parameters_in(smaller)
    return smaller if suits else None


def trainable(
    model: ModelHandle, settings: UnlearnSettings
) -> tuple[ModelHandle, list[nn.Parameter]]:
    """Copy the model; return the copy and its trainable parameters.

    Args:
        settings: its scope; for the low-rank scopes also the size and strength of the new layers,
            and the seed of their initial weights.

    Raises:
        ValueError: a scope that is empty in this model.
    """
    names = parameter_names(model, settings.scope)
    if settings.scope in LOW_RANK:
        copied = model.lora_copy(names, settings.lora_rank, settings.lora_alpha, settings.seed)
        return copied, [p for name, p in copied.named_parameters() if is_lora(name)]
    copied, in_scope = model.trainable_copy(names), set(names)
    return copied, [p for name, p in copied.named_parameters() if name in in_scope]
