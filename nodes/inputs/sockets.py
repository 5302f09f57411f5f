"""The link types of the nodes, and the marking of advanced inputs."""

from __future__ import annotations

from typing import TypeVar

from comfy_api.latest import io

CATEGORY = "unlearn"

Model = io.Custom("UNLEARN_MODEL")  # unlearn_core.models.protocol.ModelHandle
Concept = io.Custom("UNLEARN_CONCEPT")  # unlearn_core.prompts.concept.ForgetConcept
Prompts = io.Custom("UNLEARN_PROMPTS")  # unlearn_core.prompts.pairs.PromptPairs
Pictures = io.Custom("UNLEARN_PICTURES")  # unlearn_core.dataset.own_pictures.OwnPictures
Result = io.Custom("UNLEARN_RESULT")  # unlearn_core.unlearning.results.UnlearnedModel
Report = io.Custom("UNLEARN_REPORT")  # unlearn_core.evaluation.results.AlignmentReport
LoraModel = io.Custom("LORA_MODEL")  # ComfyUI's own: the tensors of a LoRA file by name

AnyInput = TypeVar("AnyInput", bound=io.Input)


def advanced(inp: AnyInput) -> AnyInput:
    """Mark an input as advanced, so that pages can fold it away. ComfyUI 0.3.75 has no
    constructor argument for this."""
    inp.extra_dict["advanced"] = True
    return inp
