"""Define Forget Concept: what the model is to forget."""

# ComfyUI passes a node the inputs of its schema by name; its base class says `**kwargs`.
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
            description="Names what the model is to forget, and what may take its place.",
            inputs=[
                io.String.Input(
                    "concept",
                    default="ink",
                    tooltip="The word by which prompts ask for what is to be forgotten, 'ink' by "
                    "default, one of the demo model's styles. Use the word the model knows it by: "
                    "what it does not know, it cannot forget.",
                ),
                io.Combo.Input(
                    "kind",
                    options=list(KINDS),
                    default="style",
                    tooltip="What sort of thing the concept is, 'style' by default. The evaluation "
                    "needs it to know what to look for in a picture, and the objective "
                    "'erase (ESD)' says 'ink style' instead of 'ink' for a style. Prompts from a "
                    "file or edited in a table must be of the same kind.",
                ),
                io.String.Input(
                    "synonyms",
                    default="",
                    tooltip="Other words for the concept, with commas between them; none by "
                    "default. They are forgotten as well. Without them, a prompt that uses "
                    "another word may still bring the concept back.",
                ),
                io.String.Input(
                    "replacements",
                    default="noto, twemoji, fluent, pixel",
                    tooltip="What may stand in the concept's place in prompts that must keep "
                    "working, with commas between; by default the demo model's other styles. "
                    "They are what the model is held to while it forgets: name its nearest "
                    "neighbours. Left empty, the concept is left out of those prompts, with what "
                    "stands there for its sake, such as 'in the style of'.",
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
            if concept is not None:  # None: comes along a link, known only when the node runs
                ForgetConcept(concept)
        except ValueError as error:
            return str(error)
        return True

    @classmethod
    def execute(cls, concept: str, kind: str, synonyms: str, replacements: str) -> io.NodeOutput:
        return io.NodeOutput(concept_of(concept, kind, synonyms, replacements))
