"""The settings of a complete job, and the JSON file that contains them."""

from __future__ import annotations

import functools
import json
from collections.abc import Callable, Mapping
from dataclasses import MISSING, dataclass, field, fields, replace
from pathlib import Path
from typing import Any, TypeVar

from ..dataset.own_pictures import OwnPictures
from ..dataset.settings import GenerationSettings, PictureSettings
from ..foundation.json_file import JsonError, read_json
from ..foundation.lists import split_list
from ..foundation.progress import Progress
from ..judging.settings import EvaluationSettings
from ..models.options import LoadOptions
from ..prompts.concept import ForgetConcept
from ..prompts.diversify import diversify
from ..prompts.files import read_prompt_file
from ..prompts.pairs import PromptPairs, together
from ..prompts.settings import PromptSettings
from ..unlearning.recipes import OURS, RecipeChoice, from_recipe
from ..unlearning.settings import UnlearnSettings

LARGEST = 5_000_000  # bytes of a settings file
OWN_PICTURES = ("forget_pictures", "retain_pictures")
SECTIONS: dict[str, type] = {
    "concept": ForgetConcept,
    "prompts": PromptSettings,
    "forget_pictures": PictureSettings,
    "retain_pictures": PictureSettings,
    "loading": LoadOptions,
    "generation": GenerationSettings,
    "unlearn": UnlearnSettings,
    "evaluation": EvaluationSettings,
}
WORD_LISTS = {"synonyms", "replacements", "candidates"}
AddNeighbours = Callable[[ForgetConcept, PromptSettings], ForgetConcept]


@dataclass(frozen=True)
class Also:
    """A further concept for the same run to forget."""

    concept: ForgetConcept
    prompts: PromptSettings = field(default_factory=PromptSettings)


@dataclass(frozen=True)
class JobSettings:
    """The content of a settings file; see ``read_settings``."""

    model: Path
    concept: ForgetConcept
    prompts: PromptSettings = field(default_factory=PromptSettings)
    also: tuple[Also, ...] = ()
    forget_pictures: PictureSettings | None = None
    retain_pictures: PictureSettings | None = None
    loading: LoadOptions = field(default_factory=LoadOptions)
    generation: GenerationSettings = field(default_factory=GenerationSettings)
    unlearn: UnlearnSettings = field(default_factory=UnlearnSettings)
    evaluation: EvaluationSettings = field(default_factory=EvaluationSettings)

    def pairs(self, add_neighbours: AddNeighbours | None = None) -> PromptPairs:
        """The diversified prompts of every concept.

        Args:
            add_neighbours: returns a concept with its neighbours added to the replacements; None if
                no concept gets neighbours.

        Raises:
            ValueError: no valid prompts result from the settings, or a prompt file is for another
                concept.
        """
        parts = [(self.concept, self.prompts)]
        parts += [(further.concept, further.prompts) for further in self.also]
        return functools.reduce(together, (_prompts(*part, add_neighbours) for part in parts))

    def own_pictures(self, name: str, progress: Progress | None = None) -> OwnPictures | None:
        """Read the user's own pictures, if any.

        Args:
            name: one of ``OWN_PICTURES``.
            progress: ticks once per picture.

        Raises:
            ValueError: names the field.
        """
        settings: PictureSettings | None = getattr(self, name)
        try:
            return None if settings is None else settings.read(progress)
        except ValueError as error:
            raise ValueError(f"{name}.{error}") from None

    @property
    def needs_neighbours(self) -> bool:
        """Whether ``pairs`` needs ``add_neighbours``."""
        return any(part.prompts.neighbours for part in (self, *self.also))


def _prompts(
    concept: ForgetConcept, settings: PromptSettings, add_neighbours: AddNeighbours | None
) -> PromptPairs:
    if settings.file is not None:
        return read_prompt_file(settings.file, concept)
    if settings.neighbours and add_neighbours is not None:
        concept = add_neighbours(concept, settings)
    return diversify(
        concept,
        *settings.grid(concept),
        train_count=settings.train_count,
        test_count=settings.test_count,
        test_share=settings.test_share,
        invented_names=settings.invented_names,
        gibberish_names=settings.gibberish_names,
        seed=settings.seed,
    )


Settings = TypeVar("Settings")


def read_settings(file: str | Path) -> JobSettings:
    """Read a settings file (JSON). Relative paths in it are relative to its folder.

    Raises:
        ValueError: not JSON, a missing or unknown field, or a value out of range; names the field.
    """
    file = Path(file)
    try:
        content = read_json(file, LARGEST)
    except FileNotFoundError:
        raise ValueError(f"settings: {str(file)!r} does not exist") from None
    except JsonError as error:
        raise ValueError(f"settings: {file.name!r} {error}") from None
    _check_fields("settings", content, JobSettings)
    for name in ("model", "concept"):
        if name not in content:
            raise ValueError(f"settings: {name!r} is missing in {file.name!r}")
    parsed: dict[str, Any] = {
        name: _build(name, kind, content[name])
        for name, kind in SECTIONS.items()
        if name in content and name not in ("unlearn", "evaluation")  # built below
    }
    if "unlearn" in content:
        parsed["unlearn"] = _unlearn(content["unlearn"])
    if not isinstance(content["model"], str) or not content["model"].strip():
        raise ValueError(
            "model must be the path of a model, relative to the settings file or absolute, got "
            f"{content['model']!r:.200}"
        )
    evaluation = content.get("evaluation", {})
    _check_fields("evaluation", evaluation, EvaluationSettings)
    evaluation = dict(evaluation)
    # Missing fields come from ``generation``, except the seed, because the evaluation must not
    # repeat training pictures.
    drawing = evaluation.pop("generation", {})
    _check_fields("evaluation.generation", drawing, GenerationSettings)
    drawing = {
        **content.get("generation", {}),
        "seed": EvaluationSettings().generation.seed,
        **drawing,
    }
    evaluation["generation"] = _build("evaluation.generation", GenerationSettings, drawing)
    settings = _build("evaluation", EvaluationSettings, evaluation)
    if settings.scorer is not None:
        settings = replace(settings, scorer=file.parent / settings.scorer)
    parsed["evaluation"] = settings
    loading = parsed.get("loading")
    if loading is not None and loading.vae is not None:
        parsed["loading"] = replace(loading, vae=file.parent / loading.vae)
    for name in OWN_PICTURES:
        if name in parsed:
            parsed[name] = replace(parsed[name], folder=file.parent / parsed[name].folder)
    if "also" in content:
        if not isinstance(content["also"], list):
            raise ValueError(f"also must be a list, got {type(content['also']).__name__}")
        parsed["also"] = tuple(
            _further(i, part, file.parent) for i, part in enumerate(content["also"])
        )
    if "prompts" in parsed:
        parsed["prompts"] = _relative_to(parsed["prompts"], file.parent)
    return JobSettings(model=file.parent / content["model"], **parsed)


def _unlearn(content: object) -> UnlearnSettings:
    """The recipe's settings, with the changes in the section."""
    _check_fields("unlearn", content, RecipeChoice, UnlearnSettings)
    assert isinstance(content, dict)
    changes = dict(content)
    try:
        return from_recipe(changes.pop("recipe", OURS), **changes)
    except ValueError as error:
        raise ValueError(f"unlearn: {error}") from None


def _further(i: int, content: object, folder: Path) -> Also:
    section = f"also[{i}]"
    _check_fields(section, content, Also)
    assert isinstance(content, dict)
    if "concept" not in content:
        raise ValueError(f"{section}: 'concept' is missing")
    concept = _build(f"{section}.concept", ForgetConcept, content["concept"])
    prompts = _build(f"{section}.prompts", PromptSettings, content.get("prompts", {}))
    return Also(concept, _relative_to(prompts, folder))


def _relative_to(prompts: PromptSettings, folder: Path) -> PromptSettings:
    return prompts if prompts.file is None else replace(prompts, file=folder / prompts.file)


def _check_fields(section: str, content: object, *kinds: type) -> None:
    if not isinstance(content, dict):
        raise ValueError(f"{section} must be an object, got {type(content).__name__}")
    known = {f.name for kind in kinds for f in fields(kind)}
    unknown = sorted(content.keys() - known)
    if unknown:
        raise ValueError(
            f"{section}: unknown field {unknown[0]!r}; choose from {', '.join(sorted(known))}"
        )


def _check_required(section: str, content: Mapping[str, object], kind: type) -> None:
    for f in fields(kind):
        if f.name not in content and f.default is MISSING and f.default_factory is MISSING:
            raise ValueError(f"{section}: {f.name!r} is missing")


def _build(section: str, kind: type[Settings], content: dict[str, Any]) -> Settings:
    _check_fields(section, content, kind)
    _check_required(section, content, kind)
    frozen = {name: tuple(v) if isinstance(v, list) else v for name, v in content.items()}
    for name in WORD_LISTS & content.keys():
        if content.get("kind") != "class":  # the names of classes contain commas
            _check_words(f"{section}: {name}", content[name])
    try:
        return kind(**frozen)
    except (TypeError, ValueError) as error:
        raise ValueError(f"{section}: {error}") from None


def _check_words(field: str, words: object) -> None:
    """Check that no text in a list of words is itself a list."""
    for word in words if isinstance(words, list) else ():
        if isinstance(word, str) and len(parts := split_list(word)) > 1:
            raise ValueError(
                f"{field} must contain each word as a text of its own, got {word!r:.80}; write "
                f"{json.dumps(parts, ensure_ascii=False):.80}"
            )
