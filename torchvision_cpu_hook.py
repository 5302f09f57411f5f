"""Lets `import torchvision` work beside a torch without CUDA; `run.py` copies it into its venv.

A package registry may serve a CPU-only torch but only the CUDA build of torchvision. Its compiled
operators then cannot load, and the import dies on "operator torchvision::nms does not exist",
which takes open_clip and ComfyUI with it although neither needs the operator. Declaring the two
missing schemas is enough. A `.pth` file imports this module at every start of the interpreter,
so it must stay cheap: torch is imported only once torchvision is.
"""

from __future__ import annotations

import importlib.abc
import sys
from collections.abc import Sequence
from importlib.machinery import ModuleSpec
from types import ModuleType

# The first module of torchvision that needs the operators; by then it has tried to load them.
_NEEDS_OPERATORS = "torchvision._meta_registrations"


class _SchemaFinder(importlib.abc.MetaPathFinder):
    """Finds nothing itself: being asked for `_NEEDS_OPERATORS` is the moment to act."""

    def __init__(self) -> None:
        self._library: object | None = None  # torch drops the schemas when this is collected

    def find_spec(
        self, fullname: str, path: Sequence[str] | None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        if fullname == _NEEDS_OPERATORS and self._library is None:
            self._declare_missing_operators()
        return None

    def _declare_missing_operators(self) -> None:
        import torch
        from torchvision import extension

        if torch.version.cuda is not None or extension._has_ops():
            return
        library = torch.library.Library("torchvision", "DEF")
        for operator in ("nms", "qnms"):
            library.define(f"{operator}(Tensor dets, Tensor scores, float iou_threshold) -> Tensor")
        self._library = library


sys.meta_path.insert(0, _SchemaFinder())
