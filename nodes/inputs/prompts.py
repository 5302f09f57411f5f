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
            tooltip="Prompt templates, one per line. Each must contain {concept}, which is "
            "replaced by the concept; other {words} in braces are replaced by values of the "
            "dimensions below. With several wordings the model forgets the concept itself rather "
            "than one way of asking for it. The default suits the demo model.",
        ),
        io.String.Input(
            "dimensions",
            multiline=True,
            dynamic_prompts=False,  # dynamic prompts would consume the braces
            default=DIMENSIONS,
            tooltip="Words to vary in the templates, one dimension per line, each with two or "
            "more values: 'object: cat, dog, house'. Variety here protects the rest of the model: "
            "list everything that it must still draw well. The default is the demo model's whole "
            "vocabulary.",
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
            tooltip="Words to choose neighbours from, separated by commas. Default: none.",
        ),
        io.Combo.Input(
            "language_model",
            options=[NO_FILE, *language_models()],
            default=NO_FILE,
            tooltip="A language model that proposes more values for every dimension: a folder in "
            "transformers' format in ComfyUI's models/LLM. Its values appear in the prompts: read "
            f"them before you use them. Default: {NO_FILE}.",
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
            tooltip="A prompt file in ComfyUI's input folder, for prompts that somebody shared or "
            "that you edited by hand. It replaces all other inputs here except the concept. "
            f"Default: {NO_FILE}.",
        ),
        io.String.Input(
            "save_as",
            default="",
            tooltip="File name under which to save the prompts in ComfyUI's output folder, to "
            "share or edit them. An existing file of that name is replaced. Default: none.",
        ),
        io.String.Input(
            "edited_prompts",
            default="",
            tooltip="Your edits in the table of prompts. The table fills this input in and "
            "empties it when you start over. It replaces all other inputs here except the "
            "concept. Default: empty.",
        ),
    ]


def _preset() -> io.Input:
    preset = io.Combo.Input(
        "preset",
        options=list(ALL_PRESETS),
        default=DEMO,
        tooltip="Templates and dimensions to start from. Choosing a preset writes them into the "
        "two fields, where you can edit them. A field that you leave empty uses the preset's. "
        f"Default: {DEMO}.",
    )
    # The page fills the two fields in.
    preset.extra_dict["presets"] = {name: as_text(texts) for name, texts in ALL_PRESETS.items()}
    return preset
