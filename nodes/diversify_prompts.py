"""Diversify Retain Prompts: pairs of prompts, with the concept and without it."""

# ComfyUI passes the inputs of the schema by name; the base class declares `**kwargs`.
# pyright: reportIncompatibleMethodOverride=false

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
from comfy_api.latest import io

from ..unlearn_core.dataset.drawing import LatentCache
from ..unlearn_core.dataset.settings import GenerationSettings
from ..unlearn_core.foundation.lists import split_list
from ..unlearn_core.foundation.plurals import count_of
from ..unlearn_core.foundation.progress import COMPARING, PROPOSING
from ..unlearn_core.judging.evaluators import find_scorer
from ..unlearn_core.judging.neighbours import with_neighbours
from ..unlearn_core.models.protocol import ModelHandle
from ..unlearn_core.prompts.concept import ForgetConcept
from ..unlearn_core.prompts.diversify import diversify
from ..unlearn_core.prompts.files import read_prompt_file, write_prompts
from ..unlearn_core.prompts.language_model import Proposer, extended
from ..unlearn_core.prompts.pairs import PromptPair, PromptPairs, repetition, together
from .host.folders import cache_folder, language_model_path, prompts_path, save_prompts, scorer_for
from .host.memory import DRAWING, load, make_room_for
from .host.plain_names import check_name
from .host.progress import NodeProgress
from .inputs import sockets
from .inputs.links import require_link
from .inputs.prompts import NO_FILE, advanced_inputs, main_inputs
from .inputs.values import checked
from .page.prompt_table import as_table, grid, read_edited

AT_ONCE = 2  # pictures of candidates per batch; two fit wherever the model itself fits


class DiversifyPrompts(io.ComfyNode):
    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="UnlearnDiversifyPrompts",
            display_name="Unlearn: Diversify Retain Prompts",
            category=sockets.CATEGORY,
            description="Writes many prompts in pairs: one with the concept, and the same prompt "
            "without it. The more varied the pairs, the better the rest of the model is protected.",
            is_output_node=True,  # so that the prompts can be read before any work starts
            inputs=[
                sockets.Concept.Input("concept", tooltip="The concept to forget."),
                *main_inputs(),
                *map(sockets.advanced, advanced_inputs()),
                sockets.Model.Input(
                    "model",
                    optional=True,
                    tooltip="Needed only for 'neighbours': the model draws the candidates to find "
                    "those that look most like the concept.",
                ),
                sockets.Prompts.Input(
                    "also",
                    optional=True,
                    tooltip="Optional, from another Diversify Retain Prompts node, to forget "
                    "several concepts in one run. Each is evaluated separately.",
                ),
            ],
            outputs=[
                sockets.Prompts.Output(
                    display_name="prompts", tooltip="For Restricted Gradient Unlearn."
                ),
                io.String.Output(display_name="text", tooltip="All the prompts as text."),
            ],
        )

    @classmethod
    def validate_inputs(cls, save_as: str | None) -> bool | str:
        """Check the file name only: ComfyUI repeats a message from here for each argument of this
        method. ``execute`` checks the other inputs; this node runs early."""
        try:
            if save_as:
                check_name(save_as, "save_as")
        except ValueError as error:
            return str(error)
        return True

    @classmethod
    def fingerprint_inputs(cls, prompts_file: str | None, **_: object) -> object:
        """An edited file counts as a changed input although its name is the same."""
        if prompts_file in (None, NO_FILE):
            return None
        try:
            status = prompts_path(prompts_file).stat()
        except (ValueError, OSError):
            return None  # ``execute`` reports the problem
        return status.st_mtime_ns, status.st_size

    @classmethod
    @checked
    def execute(
        cls,
        concept: ForgetConcept,
        templates: str,
        dimensions: str,
        train_count: int,
        test_count: int,
        test_share: float,
        seed: int,
        preset: str,
        invented_names: int,
        gibberish_names: int,
        neighbours: int,
        candidates: str,
        language_model: str,
        proposals: int,
        prompts_file: str,
        save_as: str,
        edited_prompts: str,
        model: ModelHandle | None = None,
        also: PromptPairs | None = None,
    ) -> io.NodeOutput:
        require_link("concept", concept, ForgetConcept, "Define Forget Concept")
        if also is not None:
            require_link("also", also, PromptPairs, "another Diversify Retain Prompts")
        if edited_prompts:
            pairs = read_edited(edited_prompts, concept)
        elif prompts_file != NO_FILE:
            pairs = read_prompt_file(prompts_path(prompts_file), concept)
        else:
            wordings, words = grid(preset, templates, dimensions)
            # Errors in the words are reported before any model writes or draws.
            diversify(
                concept,
                wordings,
                words,
                train_count=1,
                test_count=1,
                test_share=test_share,
                seed=seed,
            )
            if language_model != NO_FILE:
                words = _with_proposals(language_model, words, proposals, concept, seed)
            if neighbours:
                if model is not None:
                    require_link("model", model, ModelHandle, "Load Model or From ComfyUI")
                concept = _with_neighbours(
                    concept, wordings, words, model, candidates, neighbours, seed
                )
            pairs = diversify(
                concept,
                wordings,
                words,
                train_count=train_count,
                test_count=test_count,
                test_share=test_share,
                invented_names=invented_names,
                gibberish_names=gibberish_names,
                seed=seed,
            )
        path = save_prompts(save_as, write_prompts(pairs)) if save_as else None
        prompt_table = as_table(pairs)  # without the pairs from ``also``
        if also is not None:
            pairs = together(also, pairs)
        text = "\n\n".join(map(readable, pairs.each))
        if path is not None:
            text = f"Saved: {path}\n\n{text}"
        return io.NodeOutput(pairs, text, ui={"text": [text], "unlearn_prompts": [prompt_table]})


def _with_proposals(
    language_model: str,
    words: Mapping[str, tuple[str, ...]],
    count: int,
    concept: ForgetConcept,
    seed: int,
) -> dict[str, tuple[str, ...]]:
    """Add values proposed by a language model to the dimensions."""
    folder = language_model_path(language_model)
    proposer = Proposer(folder, make_room_for(folder))
    progress = NodeProgress({PROPOSING: 1})
    return extended(proposer, words, count, concept, seed=seed, progress=progress)


def _with_neighbours(
    concept: ForgetConcept,
    templates: list[str],
    dimensions: Mapping[str, tuple[str, ...]],
    model: ModelHandle | None,
    candidates: str,
    count: int,
    seed: int,
) -> ForgetConcept:
    """Add the candidates that look most like the concept to its replacements."""
    if model is None:
        raise ValueError("neighbours: link a model to draw the candidates, or set neighbours to 0")
    load(model, DRAWING)
    with torch.inference_mode(False), torch.no_grad():
        return with_neighbours(
            model,
            concept,
            templates,
            dimensions,
            split_list(candidates),
            count,
            find_scorer(model, scorer_for(model)),
            drawing=GenerationSettings(batch_size=AT_ONCE),
            seed=seed,
            cache=LatentCache(cache_folder()),
            progress=NodeProgress({COMPARING: 1}),
        )


def readable(pairs: PromptPairs) -> str:
    """List every pair of one concept: the forget prompt, and below it the retain prompt."""
    return "\n\n".join(
        (
            f"{pairs.concept.name}: {count_of(len(pairs.train), 'pair')} for unlearning, "
            f"{len(pairs.test)} for testing.",
            _section("FOR UNLEARNING", pairs.concept, pairs.train),
            _section("FOR TESTING (with words not used above)", pairs.concept, pairs.test),
        )
    )


def _section(title: str, concept: ForgetConcept, pairs: Sequence[PromptPair]) -> str:
    repeated = repetition(concept, pairs)
    heading = f"{title}: {repeated}" if repeated else title
    return "\n".join([heading, *(f"{pair.forget}\n  → {pair.retain}" for pair in pairs)])
