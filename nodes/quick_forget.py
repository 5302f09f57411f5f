"""Quick Forget: one closed-form edit of a MODEL, without training."""

# ComfyUI passes the inputs of the schema by name; the base class declares `**kwargs`.
# pyright: reportIncompatibleMethodOverride=false

from __future__ import annotations

from typing import Any

from comfy.model_patcher import ModelPatcher
from comfy_api.latest import io

from ..unlearn_core.foundation.progress import FIRST_EDIT
from ..unlearn_core.prompts.concept import KINDS, LOOK, ForgetConcept
from ..unlearn_core.prompts.diversify import diversify
from ..unlearn_core.prompts.pairs import PromptPairs
from ..unlearn_core.prompts.presets import PRESETS
from ..unlearn_core.unlearning.recipes import from_recipe
from .host.progress import NodeProgress
from .inputs import sockets
from .inputs.concept import check_concept, concept_of
from .inputs.links import Clip, require_link
from .inputs.values import checked
from .native.patching import with_lora
from .native.quick_edit import Lora, RecentEdits, closed_form, open_editable

PAIRS = 60
STRONGEST = 2.0
SETTINGS = from_recipe("UCE")
EDITS = RecentEdits(most=4)  # nodes


class QuickForget(io.ComfyNode):
    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="UnlearnQuickForget",
            display_name="Unlearn: Quick Forget",
            category=sockets.CATEGORY,
            description="Makes a model forget a style, an object or a person in seconds, without "
            "training or pictures. Put it between the loader and KSampler. For Stable Diffusion 1, "
            "2 and XL. The linked model itself is never changed.",
            hidden=[io.Hidden.unique_id],
            inputs=[
                io.Model.Input(
                    "model",
                    tooltip="The model that should forget: Stable Diffusion 1, 2 or XL, or 3 "
                    "without T5. LoRAs may come before this node, and after it.",
                ),
                io.Clip.Input(
                    "clip",
                    tooltip="The model's text encoders. They are only read, and passed on "
                    "unchanged.",
                ),
                io.String.Input(
                    "concept",
                    default="Van Gogh",
                    tooltip="The word for the concept in prompts. Use the word that the model was "
                    "trained with. To forget several things, use several of these nodes one after "
                    "another. Default: Van Gogh.",
                ),
                io.Combo.Input(
                    "kind",
                    # No MODEL has classes, and a look needs pictures.
                    options=[kind for kind in KINDS if kind not in ("class", LOOK)],
                    default="style",
                    tooltip="The type of concept. It decides which prompts are used for the edit. "
                    "Default: style.",
                ),
                io.String.Input(
                    "replacements",
                    default="Monet, Rembrandt, Hokusai, Klimt",
                    tooltip="What may take the place of the concept, separated by commas: other "
                    "styles for a style, other objects for an object. Write several that are "
                    "similar to the concept: they are also protected. If empty, the concept is "
                    "left out. Default: four other painters.",
                ),
                io.Float.Input(
                    "strength",
                    default=1.0,
                    min=0.0,
                    max=STRONGEST,
                    step=0.05,
                    tooltip="How much of the edit to apply. 1 is the whole edit, 0 is the model as "
                    "it was. Above 1 the concept is pushed further away, and other pictures change "
                    "more. Another strength needs no new edit. Default: 1.",
                ),
            ],
            outputs=[
                io.Model.Output(
                    display_name="MODEL", tooltip="The model after forgetting, for KSampler."
                ),
                io.Clip.Output(
                    display_name="CLIP", tooltip="The linked CLIP, for CLIP Text Encode."
                ),
            ],
        )

    @classmethod
    def validate_inputs(cls, concept: str | None) -> bool | str:
        return check_concept(concept)

    @classmethod
    @checked
    def execute(
        cls,
        model: ModelPatcher,
        clip: Any,
        concept: str,
        kind: str,
        replacements: str,
        strength: float,
    ) -> io.NodeOutput:
        require_link("model", model, ModelPatcher, "a loader's MODEL")
        require_link("clip", clip, Clip, "a loader's CLIP")
        if not 0 <= strength <= STRONGEST:
            raise ValueError(f"strength must be 0 to {STRONGEST:g}, got {strength}")
        pairs = prompts(concept_of(concept, kind, "", replacements))
        lora = edit_of(str(cls.hidden.unique_id), model, clip, pairs) if strength else {}
        ui = {"text": [describe(pairs.concept, strength)]}
        return io.NodeOutput(with_lora(model, lora, strength), clip, ui=ui)


def edit_of(node: str, model: ModelPatcher, clip: Any, pairs: PromptPairs) -> Lora:
    """The edit of a MODEL as a LoRA; the node's last one if nothing has changed.

    Raises:
        UnsupportedError: the closed-form edit does not suit the model.
    """
    handle = open_editable(model, clip)

    def edit() -> Lora:
        weight, tokens = SETTINGS.retain_weight, SETTINGS.uce_tokens
        return closed_form(handle, pairs, weight, tokens, NodeProgress({FIRST_EDIT: 1}))

    return EDITS.get(node, (handle.info.fingerprint, pairs), edit)


def prompts(concept: ForgetConcept) -> PromptPairs:
    """The pairs of the preset for the concept's kind."""
    preset = PRESETS[concept.kind]
    return diversify(concept, preset.templates, preset.dimensions, train_count=PAIRS, test_count=1)


def describe(concept: ForgetConcept, strength: float) -> str:
    """What the edit did, in one line."""
    if strength == 0:
        return "strength 0: the model is unchanged"
    change = "is now left out of pictures"
    if concept.replacements:
        change = f"now draws as {', '.join(concept.replacements)}"
    return f"{concept.name} {change}; {PAIRS} prompt pairs; strength {strength:g}"
