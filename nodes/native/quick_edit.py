"""The closed-form edit of a MODEL, as the tensors of a LoRA file."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Mapping
from typing import Any

import torch
from comfy.model_patcher import ModelPatcher
from torch import Tensor

from ...unlearn_core.foundation.progress import Progress
from ...unlearn_core.models.errors import UnsupportedError
from ...unlearn_core.prompts.pairs import PromptPairs
from ...unlearn_core.unlearning.uce import changes, refuse_non_finite
from .conditioning import has_t5
from .handle import NativeHandle
from .network import Network
from .opening import open_native

Lora = Mapping[str, Tensor]


def open_editable(model: ModelPatcher, clip: Any) -> NativeHandle:
    """The handle of a MODEL that the closed-form edit suits. Others are not even loaded.

    Raises:
        UnsupportedError: no layer of the model reads the words of a prompt one by one.
    """
    network, with_t5 = Network(model), has_t5(clip)
    if with_t5 or not network.text_projections:
        raise UnsupportedError(
            "model must be Stable Diffusion 1, 2 or XL, or Stable Diffusion 3 without T5, for "
            f"Quick Forget, got {network.family.label}{' with T5' if with_t5 else ''}; use From "
            "ComfyUI and Restricted Gradient Unlearn instead"
        )
    return open_native(model, clip)


@torch.inference_mode(False)
@torch.no_grad()
def closed_form(
    handle: NativeHandle,
    pairs: PromptPairs,
    retain_weight: float,
    tokens: str,
    progress: Progress | None = None,
) -> dict[str, Tensor]:
    """The change ``W' - W`` of each weight that reads the prompt, on the CPU, under ComfyUI's own
    names. The weights of models in 16 bits change in 16 bits.

    The arguments are those of ``uce.edits``. Unlike it, this never holds all weights twice, and
    multiplies where the model is: SDXL has 1.5 GB of them in fp32.

    Raises:
        ValueError: the edit is ill-conditioned, or not finite in the dtype of the MODEL.
    """
    matrices = changes(handle, pairs, retain_weight, tokens, progress)
    handle.load()  # the text encoders may have taken its place
    differences = {
        text_input: (matrix.T - torch.eye(len(matrix), dtype=matrix.dtype)).to(
            handle.device, torch.float32
        )
        for text_input, matrix in matrices.items()
    }
    dtype = torch.float16 if handle.info.mixed else torch.float32
    lora: dict[str, Tensor] = {}
    for name, text_input in handle.text_projections().items():
        module = name.removesuffix(".weight")
        change = handle.network.weight(module) @ differences[text_input]
        lora[f"diffusion_model.{module}.diff"] = change.to("cpu", dtype)
    refuse_non_finite(lora.items())
    return lora


class RecentEdits:
    """The last edit of each of a few nodes, so that a node with another strength does not edit
    again."""

    def __init__(self, most: int) -> None:
        self.most = most
        self._edits: OrderedDict[str, tuple[object, Lora]] = OrderedDict()

    def get(self, node: str, origin: object, edit: Callable[[], Lora]) -> Lora:
        """The node's last edit if ``origin`` is still the same, otherwise a new one.

        Args:
            origin: everything that the edit depends on.
        """
        last = self._edits.pop(node, None)
        lora = last[1] if last is not None and last[0] == origin else edit()
        self._edits[node] = (origin, lora)
        while len(self._edits) > self.most:
            self._edits.popitem(last=False)
        return lora
