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
ALL_PRESETS: dict[str, Preset] = {
    DEMO: Preset(tuple(TEMPLATES.splitlines()), parse_dimensions(DIMENSIONS)),
    **PRESETS,
}


def as_text(preset: Preset) -> tuple[str, str]:
    """The preset's templates and dimensions, as texts for the two fields."""
    lines = [f"{name}: {', '.join(values)}" for name, values in preset.dimensions.items()]
    return "\n".join(preset.templates), "\n".join(lines)


def main_inputs() -> list[io.Input]:
    return [
        io.String.Input(
            "templates",
            multiline=True,
            dynamic_prompts=False,  # dynamic prompts would consume the braces
            default=TEMPLATES,
            tooltip="Prompt templates, one per line. Each must contain {concept}, where the "
            "concept is filled in; for a look, none may contain it. Other {words} in braces are "
            "filled in with values of the dimensions below. Write several wordings: with only "
            "one, the model may forget that wording but not the concept. The default suits the "
            "demo model.",
        ),
        io.String.Input(
            "dimensions",
            multiline=True,
            dynamic_prompts=False,  # dynamic prompts would consume the braces
            default=DIMENSIONS,
            tooltip="Words to vary in the templates, such as 'object: cat, dog, house': one "
            "dimension per line, each with two or more values. Variety protects the rest of the "
            "model: list everything that it must still draw well. The default is the demo model's "
            "whole vocabulary.",
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
            tooltip="Words to choose the neighbours from, separated by commas. Default: none.",
        ),
        io.Combo.Input(
            "language_model",
            options=[NO_FILE, *language_models()],
            default=NO_FILE,
            tooltip="A language model that adds values to every dimension. It must be a folder in "
            "ComfyUI's models/LLM, in the format of transformers. Check its values in the prompts "
            f"before you use them. Default: {NO_FILE}.",
        ),
        io.Int.Input(
            "proposals",
            default=8,
            min=1,
            max=100,
            tooltip="Number of values that the language model proposes for each dimension. "
            "Default: 8.",
        ),
        io.Combo.Input(
            "prompts_file",
            options=[NO_FILE, *prompt_files()],
            default=NO_FILE,
            tooltip="A prompt file from ComfyUI's input folder, shared by somebody or edited by "
            "hand. It replaces all other inputs here except the concept. "
            f"Default: {NO_FILE}.",
        ),
        io.String.Input(
            "save_as",
            default="",
            tooltip="File name for saving the prompts in ComfyUI's output folder, to share or edit "
            "them. An existing file with this name is replaced. Default: none.",
        ),
        io.String.Input(
            "edited_prompts",
            default="",
            tooltip="Your edits in the table of prompts. The table writes them here, and clears "
            "them when you press 'Start over'. They replace all other inputs here except the "
            "concept. Default: empty.",
        ),
    ]


def _preset() -> io.Input:
    preset = io.Combo.Input(
        "preset",
        options=list(ALL_PRESETS),
        default=DEMO,
        tooltip="Templates and dimensions to start from. When you choose a preset, they are "
        "written into the two fields, where you can edit them. An empty field uses the text of the "
        f"preset. Default: {DEMO}.",
    )
    # The page fills the two fields in.
    preset.extra_dict["presets"] = {name: as_text(texts) for name, texts in ALL_PRESETS.items()}
    return preset
