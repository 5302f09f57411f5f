"""Diversify Retain Prompts: pairs of prompts, with the concept and without it."""

# ComfyUI passes a node the inputs of its schema by name; its base class says `**kwargs`.
# pyright: reportIncompatibleMethodOverride=false

from __future__ import annotations

from collections.abc import Sequence

from comfy_api.latest import io

from ..unlearn_core.concepts import ForgetConcept
from ..unlearn_core.job import PromptSettings
from ..unlearn_core.prompts import PromptPair, PromptPairs, diversify, parse_dimensions
from . import sockets
from .pictures import shown

TEMPLATES = """\
a {object} in {concept} style on a {background} background
a {object} drawn in {concept} style, {background} background
{concept} style {object}"""
DIMENSIONS = """\
object: cat, dog, fish, bird, apple, banana, pizza, rocket, house, tree, sunflower, tulip, \
cactus, mushroom, butterfly, frog, pig, rabbit, bear, lion, car, bicycle, sailboat, umbrella, \
guitar, key, crown, heart, star, sun, hamburger, cake
background: white, pink, blue, green, yellow, gray"""

ANY_CONCEPT = ForgetConcept("«concept»")  # stands for the linked one; no template holds this word


class DiversifyPrompts(io.ComfyNode):
    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="UnlearnDiversifyPrompts",
            display_name="Unlearn: Diversify Retain Prompts",
            category=sockets.CATEGORY,
            description="Builds many pairs of prompts, one that asks for the concept and one just "
            "like it that does not. The more varied they are, the less else the model forgets.",
            is_output_node=True,  # so that the prompts can be read before any work starts
            inputs=[
                sockets.Concept.Input("concept", tooltip="What is to be forgotten."),
                io.String.Input(
                    "templates",
                    multiline=True,
                    dynamic_prompts=False,  # which would eat the braces
                    default=TEMPLATES,
                    tooltip="Prompts to build on, one a line; the default suits the demo model. "
                    "{concept} stands for what is to be forgotten and must be in each; other "
                    "{words} stand for the dimensions below. Several wordings make the model "
                    "forget the concept itself and not one way of asking for it.",
                ),
                io.String.Input(
                    "dimensions",
                    multiline=True,
                    dynamic_prompts=False,  # which would eat the braces
                    default=DIMENSIONS,
                    tooltip="What to vary, one dimension a line: 'object: cat, dog, house'. Two or "
                    "more values each; the default is the demo model's whole vocabulary. Variety "
                    "here is what protects the rest of the model: list whatever it must still "
                    "draw well.",
                ),
                io.Int.Input(
                    "train_count",
                    default=PromptSettings.train_count,
                    min=1,
                    max=10_000,
                    tooltip=f"Pairs to unlearn with, {PromptSettings.train_count} by default. Two "
                    "pictures are drawn for each: more takes longer, and keeps the rest safer.",
                ),
                io.Int.Input(
                    "test_count",
                    default=PromptSettings.test_count,
                    min=1,
                    max=10_000,
                    tooltip=f"Pairs to evaluate with, {PromptSettings.test_count} by default. "
                    "Prompts alone cost nothing; how many pictures are drawn is set in Evaluate "
                    "Alignment.",
                ),
                io.Float.Input(
                    "test_share",
                    default=PromptSettings.test_share,
                    min=0.05,
                    max=0.95,
                    step=0.05,
                    tooltip="Share of each dimension's values that only test prompts use, "
                    f"{PromptSettings.test_share:g} by default. The evaluation then tells whether "
                    "unlearning carries over to words it never saw. More makes the test harder "
                    "and the training poorer.",
                ),
                io.Int.Input(
                    "seed",
                    default=PromptSettings.seed,
                    min=0,
                    max=2**32 - 1,
                    control_after_generate=False,
                    tooltip="Shuffles the prompts and which words are held back, "
                    f"{PromptSettings.seed} by default. The same seed gives the same prompts.",
                ),
            ],
            outputs=[
                sockets.Prompts.Output(
                    display_name="prompts", tooltip="For Restricted Gradient Unlearn."
                ),
                io.String.Output(display_name="text", tooltip="All the prompts, to read."),
            ],
        )

    @classmethod
    def validate_inputs(cls, templates: str | None, dimensions: str | None) -> bool | str:
        try:
            if templates is not None and dimensions is not None:  # None: comes along a link
                diversify(
                    ANY_CONCEPT,
                    templates.splitlines(),
                    parse_dimensions(dimensions),
                    train_count=1,
                    test_count=1,
                )
        except ValueError as error:
            return str(error)
        return True

    @classmethod
    def execute(
        cls,
        concept: ForgetConcept,
        templates: str,
        dimensions: str,
        train_count: int,
        test_count: int,
        test_share: float,
        seed: int,
    ) -> io.NodeOutput:
        pairs = diversify(
            concept,
            templates.splitlines(),
            parse_dimensions(dimensions),
            train_count=train_count,
            test_count=test_count,
            test_share=test_share,
            seed=seed,
        )
        text = readable(pairs)
        return io.NodeOutput(pairs, text, ui=shown(cls, text=text))


def readable(pairs: PromptPairs) -> str:
    """Every pair: the forget prompt, and below it the retain prompt."""
    return "\n\n".join(
        (
            f"{len(pairs.train)} pairs to unlearn with, {len(pairs.test)} to test with.",
            _section("UNLEARN WITH", pairs.train),
            _section("TEST WITH (words that the pairs above never use)", pairs.test),
        )
    )


def _section(title: str, pairs: Sequence[PromptPair]) -> str:
    return "\n".join([title, *(f"{pair.forget}\n  → {pair.retain}" for pair in pairs)])
