"""Define Forget Concept: the concept to forget, and its replacements."""

# ComfyUI passes the inputs of the schema by name; the base class declares `**kwargs`.
# pyright: reportIncompatibleMethodOverride=false

from __future__ import annotations

from comfy_api.latest import io

from ..unlearn_core.prompts.concept import KINDS
from .inputs import sockets
from .inputs.concept import check_concept, concept_of
from .inputs.values import checked


class DefineForgetConcept(io.ComfyNode):
    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="UnlearnForgetConcept",
            display_name="Unlearn: Define Forget Concept",
            category=sockets.CATEGORY,
            description="Names the concept to forget, and its replacements.",
            inputs=[
                io.String.Input(
                    "concept",
                    default="ink",
                    tooltip="The word for the concept in prompts. Use the word that the model was "
                    "trained with: the model cannot forget a word that it does not know. Default: "
                    "ink, one of the demo model's styles.",
                ),
                io.Combo.Input(
                    "kind",
                    options=list(KINDS),
                    default="style",
                    tooltip="The type of concept. The evaluation looks for this in a picture. For "
                    "a style, the objective 'erase (ESD)' writes 'ink style' instead of 'ink'. "
                    "'look' is for what no word names, such as a watermark: pictures with and "
                    "without it show it, and the concept is only a label. "
                    "Prompts from a file or from the edited table must be for the same kind. "
                    "Default: style.",
                ),
                io.String.Input(
                    "synonyms",
                    default="",
                    tooltip="Other words for the concept, separated by commas. They are forgotten "
                    "too. Without them, a prompt with another word may still show the concept. "
                    "Default: none.",
                ),
                io.String.Input(
                    "replacements",
                    default="noto, twemoji, fluent, pixel",
                    tooltip="Words that take the place of the concept in the prompts that must "
                    "keep working, separated by commas. Write what is most similar to the concept: "
                    "replacements are protected best. If empty, the concept is removed from those "
                    "prompts, together with words that only introduce it, such as 'in the style "
                    "of'. A look has none. Default: the demo model's other styles.",
                ),
            ],
            outputs=[
                sockets.Concept.Output(
                    display_name="concept", tooltip="For Diversify Retain Prompts."
                ),
            ],
        )

    @classmethod
    def validate_inputs(cls, concept: str | None) -> bool | str:
        return check_concept(concept)

    @classmethod
    @checked
    def execute(cls, concept: str, kind: str, synonyms: str, replacements: str) -> io.NodeOutput:
        return io.NodeOutput(concept_of(concept, kind, synonyms, replacements))
