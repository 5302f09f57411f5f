"""The choice of a plan that fits into the memory of the device, before a run."""

from __future__ import annotations

from dataclasses import replace

from ..dataset.settings import GenerationSettings
from ..foundation.memory import is_out_of_memory
from ..foundation.progress import Progress
from ..models.denoiser import FULL_SIZE
from ..models.protocol import ModelHandle
from .estimate import Sizes, sizes
from .plan import ERROR, Plan, gigabytes
from .scopes import smaller_scope
from .settings import UnlearnSettings


class TooLargeError(ValueError):
    """Not even one picture at a time fits."""


def plan_for(
    base: ModelHandle,
    settings: UnlearnSettings,
    prompt: str,
    free: int | None,
    progress: Progress | None = None,
    *,
    drawing: GenerationSettings | None = None,
    own_pictures: bool = False,
) -> Plan:
    """The plan of a run, see ``choose``. Small models always have enough memory for whole batches.

    Args:
        settings: without automatic values.
        prompt: any prompt that the model can encode.
        free: bytes of the device that nothing uses; None if unknown.
        drawing: of the previews; None if no pictures are drawn during the run.
        own_pictures: whether the retain set contains the user's own pictures.

    Raises:
        TooLargeError: not even one picture at a time fits; names the cure.
    """
    if sum(parameter.numel() for _, parameter in base.named_parameters()) < FULL_SIZE:
        return Plan()
    smaller = smaller_scope(base, settings)
    try:
        measured = sizes(
            base, settings, prompt, progress, drawing=drawing, own_pictures=own_pictures
        )
    except RuntimeError as error:
        if not is_out_of_memory(error):
            raise
        raise TooLargeError(
            f"scope {settings.scope!r} needs more memory than there is, even with 1 picture at a "
            f"time; {_cure(smaller, settings)}"
        ) from error
    is_exact = base.device.type == "cuda"
    return choose(measured, settings, free, is_exact=is_exact, smaller=smaller)


def choose(
    sizes: Sizes,
    settings: UnlearnSettings,
    free: int | None,
    *,
    is_exact: bool = True,
    smaller: str | None = None,
) -> Plan:
    """The plan with the largest parts of a batch that fits.

    Args:
        free: bytes of the device that nothing uses, with the model loaded; None if unknown.
        is_exact: whether ``free`` is a limit. The main memory is none: it can be swapped.
        smaller: the scope to suggest if none fits.

    Raises:
        TooLargeError: not even one picture at a time fits.
    """
    batch_size = settings.batch_size
    available = None if free is None else free + sizes.model + sizes.released
    plans = [Plan(), *(Plan(size) for size in _halves(batch_size))]
    if sizes.two is None:
        plans = [plan for plan in plans if plan.at_once(batch_size) == 1]
    plans = [
        replace(plan, needed_bytes=sizes.total(plan, batch_size), available_bytes=available)
        for plan in plans
    ]
    for plan in plans:
        if plan.fits:
            return plan
    needed = sizes.total(plans[-1], batch_size)
    if is_exact and available is not None and needed > available * (1 + ERROR):
        raise TooLargeError(
            f"scope {settings.scope!r} needs about {gigabytes(needed)} GB of memory even with 1 "
            f"picture at a time, and {gigabytes(available)} GB can be used; "
            f"{_cure(smaller, settings)}"
        )
    return plans[-1]


def _cure(smaller: str | None, settings: UnlearnSettings) -> str:
    pictures = "smaller pictures (image_size)"
    if settings.harden:
        return f"switch harden off, or choose {pictures}"
    return f"choose scope {smaller!r} or {pictures}" if smaller else f"choose {pictures}"


def _halves(batch_size: int) -> list[int]:
    """Half of the batch, a quarter, and so on to 1."""
    sizes = []
    while batch_size > 1:
        batch_size //= 2
        sizes.append(batch_size)
    return sizes
