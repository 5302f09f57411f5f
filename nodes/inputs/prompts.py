"""The inputs of Diversify Retain Prompts."""

from __future__ import annotations

from comfy_api.latest import io

from ...unlearn_core.prompts.diversify import parse_dimensions
from ...unlearn_core.prompts.presets import PRESETS, Preset
from ...unlearn_core.prompts.settings import PromptSettings
from ..host.folders import NO_FILE, language_models, prompt_files
from .from_settings import input_from

TEMPLATES = """\
a {object} in {concept} style on a {background} background
a {object} drawn in {concept} style, {background} background
{concept} style {object}"""
DIMENSIONS = """\
object: cat, dog, fish, bird, apple, banana, pizza, rocket, house, tree, sunflower, tulip, \
cactus, mushroom, butterfly, frog, pig, rabbit, bear, lion, car, bicycle, sailboat, umbrella, \
guitar, key, crown, heart, star, sun, hamburger, cake
background: white, pink, blue, green, yellow, gray"""

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
            tooltip="Prompts to build on, one a line. {concept} stands for what is to be "
            "forgotten and must be in each; other {words} stand for the dimensions below. Several "
            "wordings make the model forget the concept itself and not one way of asking for it. "
            "The default suits the demo model.",
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
        input_from(PromptSettings, "train_count"),
        input_from(PromptSettings, "test_count"),
        input_from(PromptSettings, "test_share"),
        input_from(PromptSettings, "seed"),
        _preset(),
    ]


def advanced_inputs() -> list[io.Input]:
    return [
        input_from(PromptSettings, "invented_names"),
        input_from(PromptSettings, "gibberish_names"),
        input_from(PromptSettings, "neighbours"),
        io.String.Input(
            "candidates",
            default="",
            tooltip="Words to choose neighbours from, with commas between them. Default: none.",
        ),
        io.Combo.Input(
            "language_model",
            options=[NO_FILE, *language_models()],
            default=NO_FILE,
            tooltip="A language model from ComfyUI's models/LLM folder, a folder of transformers "
            "each, that proposes more values for every dimension. They appear among the prompts: "
            f"read them before you use them. Default: {NO_FILE}.",
        ),
        io.Int.Input(
            "proposals",
            default=8,
            min=1,
            max=100,
            tooltip="How many values it proposes for each dimension. Default: 8.",
        ),
        io.Combo.Input(
            "prompts_file",
            options=[NO_FILE, *prompt_files()],
            default=NO_FILE,
            tooltip="A file of prompts from ComfyUI's input folder. It takes the place of "
            "everything else here but the concept: for prompts that somebody shared, or that you "
            f"edited by hand. Default: {NO_FILE}.",
        ),
        io.String.Input(
            "save_as",
            default="",
            tooltip="Name of a file in ComfyUI's output folder to keep the prompts in, to share or "
            "to edit. A file of that name is replaced. Default: none.",
        ),
        io.String.Input(
            "edited_prompts",
            default="",
            tooltip="The prompts as you edited them in the table. It takes the place of "
            "everything else here but the concept. The table writes it, and empties it when you "
            "start over. Default: empty.",
        ),
    ]


def _preset() -> io.Input:
    preset = io.Combo.Input(
        "preset",
        options=list(OFFERED),
        default=DEMO,
        tooltip="Wordings and words to start from: choosing one writes it into templates and "
        "dimensions, for you to edit. Where one of these is empty, the preset is used as it "
        f"stands. Default: {DEMO}.",
    )
    # For the page, which does the writing.
    preset.extra_dict["presets"] = {name: as_text(offered) for name, offered in OFFERED.items()}
    return preset
