"""Make a text-to-image model forget a concept and keep the rest.

The mathematics needs two gradients and nothing else:

>>> import torch
>>> from unlearn_core import combine, gram, restricted
>>> grad_forget, grad_retain = torch.tensor([1.0, 0.0]), torch.tensor([-1.0, 1.0])
>>> products = gram([grad_forget], [grad_retain])  # lists: a model has many parameters
>>> products.conflict
True
>>> coefficients = restricted(products, retain_weight=1.0)
>>> combine(grad_forget, grad_retain, coefficients)  # no negative product with either gradient
tensor([0.5000, 1.5000])

``unlearn_core.job.job.Job`` does a complete run, from a model folder to a saved model.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from .interface import *  # noqa: F403


def __getattr__(name: str) -> Any:
    """Import the interface, and with it torch, at its first use: a command must be able to prepare
    for Ctrl+C before this import, which takes seconds."""
    if name != "interface":  # which the next line asks for before it imports it
        from . import interface

        if name == "__all__" or name in interface.__all__:
            return getattr(interface, name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
