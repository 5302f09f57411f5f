"""Define Forget Concept: the concept to forget, and its replacements."""

# ComfyUI passes the inputs of the schema by name; the base class declares `**kwargs`.
# pyright: reportIncompatibleMethodOverride=false

from __future__ import annotations

from comfy_api.latest import io

from ..unlearn_core.prompts.concept import KINDS, ForgetConcept
from .inputs import sockets
from .inputs.concept import concept_of


class DefineForgetConcept(io.ComfyNode):
    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="UnlearnForgetConcept",
            display_name="Unlearn: Define Forget Concept",
            category=sockets.CATEGORY,
            description="Names the concept that the model should forget, and its replacements.",
            inputs=[
                io.String.Input(
                    "concept",
                    default="ink",
                    tooltip="The concept to forget, as prompts name it. Use the word that the "
                    "model knows it by: it cannot forget what it does not know. Default: ink, one "
                    "of the demo model's styles.",
                ),
                io.Combo.Input(
                    "kind",
                    options=list(KINDS),
                    default="style",
                    tooltip="The kind of concept. It decides what the evaluation looks for in a "
                    "picture; for a style, the objective 'erase (ESD)' writes 'ink style' instead "
                    "of 'ink'. Prompts from a file or edited in the table must be of the same "
                    "kind. Default: style.",
                ),
                io.String.Input(
                    "synonyms",
                    default="",
                    tooltip="Other words for the concept, separated by commas. They are forgotten "
                    "as well. Without them, a prompt with another word may still bring the "
                    "concept back. Default: none.",
                ),
                io.String.Input(
                    "replacements",
                    default="noto, twemoji, fluent, pixel",
                    tooltip="Alternatives that replace the concept in the prompts to preserve, "
                    "separated by commas. They protect similar things while the model forgets: "
                    "name the concept's nearest neighbours. If empty, the concept is removed from "
                    "those prompts, together with words that only introduce it, such as 'in the "
                    "style of'. Default: the demo model's other styles.",
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
        try:
            if concept is not None:  # None: a linked value, known only when the node runs
                ForgetConcept(concept)
        except ValueError as error:
            return str(error)
        return True

    @classmethod
    def execute(cls, concept: str, kind: str, synonyms: str, replacements: str) -> io.NodeOutput:
        return io.NodeOutput(concept_of(concept, kind, synonyms, replacements))
