"""The inputs of Diversify Retain Prompts."""

from __future__ import annotations

from comfy_api.latest import io

from ...unlearn_core.prompts.diversify import parse_dimensions
from ...unlearn_core.prompts.presets import PRESETS, Preset
from ...unlearn_core.prompts.settings import PromptSettings
from ..host.folders import NO_FILE, language_models, prompt_files

TEMPLATES = """\
a {object} in {concept} style on a {background} background
a {object} drawn in {concept} style, {background} background
{concept} style {object}"""
DIMENSIONS = """\
object: cat, dog, fish, bird, apple, banana, pizza, rocket, house, tree, sunflower, tulip, \
cactus, mushroom, butterfly, frog, pig, rabbit, bear, lion, car, bicycle, sailboat, umbrella, \
guitar, key, crown, heart, star, sun, hamburger, cake
background: white, pink, blue, green, yellow, gray"""

MOST_PAIRS, MOST_NAMES = 10_000, 100

DEMO = "demo"
OFFERED: dict[str, Preset] = {
    DEMO: Preset(tuple(TEMPLATES.splitlines()), parse_dimensions(DIMENSIONS)),
    **PRESETS,
}


def as_text(preset: Preset) -> tuple[str, str]:
    """A preset's templates and dimensions as the two fields have them."""
    lines = [f"{name}: {', '.join(values)}" for name, values in preset.dimensions.items()]
    return "\n".join(preset.templates), "\n".join(lines)


def main_inputs() -> list[io.Input]:
    return [
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
            max=MOST_PAIRS,
            tooltip=f"Pairs to unlearn with, {PromptSettings.train_count} by default. Two "
            "pictures are drawn for each: more takes longer, and keeps the rest safer.",
        ),
        io.Int.Input(
            "test_count",
            default=PromptSettings.test_count,
            min=1,
            max=MOST_PAIRS,
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
        _preset(),
    ]


def advanced_inputs() -> list[io.Input]:
    return [
        io.Int.Input(
            "invented_names",
            default=PromptSettings.invented_names,
            min=0,
            max=MOST_NAMES,
            tooltip="How many names of artists who never lived may take the concept's place, "
            f"{PromptSettings.invented_names} by default. With them the model learns to let go of "
            "one name rather than of all that sounds like a name.",
        ),
        io.Int.Input(
            "gibberish_names",
            default=PromptSettings.gibberish_names,
            min=0,
            max=MOST_NAMES,
            tooltip="How many meaningless words may take the concept's place, "
            f"{PromptSettings.gibberish_names} by default.",
        ),
        io.Int.Input(
            "neighbours",
            default=0,
            min=0,
            max=100,
            tooltip="How many of the candidates below join the replacements: those whose pictures "
            "look most like the concept's, 0 by default. What looks like the concept suffers first "
            "when it is forgotten. Needs the model linked, and draws a few pictures.",
        ),
        io.String.Input(
            "candidates",
            default="",
            tooltip="Words to choose neighbours from, with commas between them; none by default.",
        ),
        io.Combo.Input(
            "language_model",
            options=[NO_FILE, *language_models()],
            default=NO_FILE,
            tooltip="A language model from ComfyUI's models/LLM folder, a folder of transformers "
            f"each, that proposes more values for every dimension, {NO_FILE!r} by default. Read "
            "what it wrote before you use it.",
        ),
        io.Int.Input(
            "proposals",
            default=8,
            min=1,
            max=100,
            tooltip="How many values it proposes for each dimension, 8 by default.",
        ),
        io.Combo.Input(
            "prompts_file",
            options=[NO_FILE, *prompt_files()],
            default=NO_FILE,
            tooltip=f"A file of prompts from ComfyUI's input folder, {NO_FILE!r} by default. It "
            "takes the place of everything else here but the concept: for prompts that somebody "
            "shared, or that you edited by hand.",
        ),
        io.String.Input(
            "save_as",
            default="",
            tooltip="Name of a file in ComfyUI's output folder to keep the prompts in, to share or "
            "to edit; none by default. A file of that name is replaced.",
        ),
        io.String.Input(
            "edited_prompts",
            default="",
            tooltip="The prompts as you edited them in the table; empty by default. It takes the "
            "place of everything else here but the concept. The table writes it, and empties it "
            "when you start over.",
        ),
    ]


def _preset() -> io.Input:
    preset = io.Combo.Input(
        "preset",
        options=list(OFFERED),
        default=DEMO,
        tooltip=f"Wordings and words to start from, {DEMO!r} by default: choosing one writes it "
        "into templates and dimensions, for you to edit. Where one of these is empty, it is used "
        "as it stands.",
    )
    # For the page, which does the writing.
    preset.extra_dict["presets"] = {name: as_text(offered) for name, offered in OFFERED.items()}
    return preset
