"""A whole job's settings, and the JSON file that holds them."""

from __future__ import annotations

import functools
import json
from collections.abc import Callable, Mapping
from dataclasses import MISSING, dataclass, field, fields, replace
from pathlib import Path
from typing import Any, TypeVar

from ..dataset.own_pictures import OwnPictures
from ..dataset.settings import GenerationSettings, PictureSettings
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
Protect = Callable[[ForgetConcept, PromptSettings], ForgetConcept]


@dataclass(frozen=True)
class Also:
    """A further concept that the same run forgets."""

    concept: ForgetConcept
    prompts: PromptSettings = field(default_factory=PromptSettings)


@dataclass(frozen=True)
class JobSettings:
    """What a settings file holds; see ``read_settings``."""

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

    def pairs(self, protect: Protect | None = None) -> PromptPairs:
        """The diversified prompts of every concept.

        Args:
            protect: adds to each concept what looks like it; without, those stay as they are.

        Raises:
            ValueError: prompts that cannot be, or a file of prompts for another concept.
        """
        of_each = [(self.concept, self.prompts)]
        of_each += [(further.concept, further.prompts) for further in self.also]
        return functools.reduce(together, (_prompts(*part, protect) for part in of_each))

    def own_pictures(self, name: str, progress: Progress | None = None) -> OwnPictures | None:
        """A person's own pictures, if any.

        Args:
            name: one of ``OWN_PICTURES``.
            progress: ticks once for each picture.

        Raises:
            ValueError: naming the field.
        """
        settings: PictureSettings | None = getattr(self, name)
        try:
            return None if settings is None else settings.read(progress)
        except ValueError as error:
            raise ValueError(f"{name}.{error}") from None

    @property
    def wants_neighbours(self) -> bool:
        """Whether ``pairs`` has anything to ``protect``."""
        return any(part.prompts.neighbours for part in (self, *self.also))


def _prompts(
    concept: ForgetConcept, settings: PromptSettings, protect: Protect | None
) -> PromptPairs:
    if settings.file is not None:
        return read_prompt_file(settings.file, concept)
    if settings.neighbours and protect is not None:
        concept = protect(concept, settings)
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
    """Read a settings file (JSON); relative paths in it count from its folder.

    Raises:
        ValueError: not JSON, a missing or unknown field, a value out of range; names the field.
    """
    file = Path(file)
    try:
        content = json.loads(file.read_text(encoding="utf-8-sig"))
    except FileNotFoundError:
        raise ValueError(f"settings: {str(file)!r} does not exist") from None
    except ValueError as error:
        raise ValueError(f"settings: {file.name!r} is not JSON ({error})") from None
    _check_fields("settings", content, JobSettings)
    for name in ("model", "concept"):
        if name not in content:
            raise ValueError(f"settings: {name!r} is missing in {file.name!r}")
    parsed: dict[str, Any] = {
        name: _build(name, kind, content[name])
        for name, kind in SECTIONS.items()
        if name in content and name not in ("unlearn", "evaluation")  # built in their own ways
    }
    if "unlearn" in content:
        parsed["unlearn"] = _unlearn(content["unlearn"])
    if not isinstance(content["model"], str) or not content["model"].strip():
        raise ValueError(
            f"model must be the path of a model, absolute or from the settings file's folder, got "
            f"{content['model']!r}"
        )
    evaluation = content.get("evaluation", {})
    _check_fields("evaluation", evaluation, EvaluationSettings)
    evaluation = dict(evaluation)
    # What is left out is drawn as the rest, but for the seed: its pictures are other ones.
    drawing = evaluation.pop("generation", {})
    _check_fields("evaluation.generation", drawing, GenerationSettings)
    drawing = {
        **content.get("generation", {}),
        "seed": EvaluationSettings().generation.seed,
        **drawing,
    }
    evaluation["generation"] = _build("evaluation.generation", GenerationSettings, drawing)
    built = _build("evaluation", EvaluationSettings, evaluation)
    if built.scorer is not None:
        built = replace(built, scorer=file.parent / built.scorer)
    parsed["evaluation"] = built
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
        parsed["prompts"] = _beside(parsed["prompts"], file.parent)
    return JobSettings(model=file.parent / content["model"], **parsed)


def _unlearn(content: object) -> UnlearnSettings:
    """The recipe's settings, with those changed that the section names."""
    _check_fields("unlearn", content, RecipeChoice, UnlearnSettings)
    assert isinstance(content, dict)
    changes = dict(content)
    try:
        return from_recipe(changes.pop("recipe", OURS), **changes)
    except ValueError as error:
        raise ValueError(f"unlearn: {error}") from None


def _further(i: int, content: object, folder: Path) -> Also:
    where = f"also[{i}]"
    _check_fields(where, content, Also)
    assert isinstance(content, dict)
    if "concept" not in content:
        raise ValueError(f"{where}: 'concept' is missing")
    concept = _build(f"{where}.concept", ForgetConcept, content["concept"])
    prompts = _build(f"{where}.prompts", PromptSettings, content.get("prompts", {}))
    return Also(concept, _beside(prompts, folder))


def _beside(prompts: PromptSettings, folder: Path) -> PromptSettings:
    return prompts if prompts.file is None else replace(prompts, file=folder / prompts.file)


def _check_fields(section: str, content: object, *kinds: type) -> None:
    if not isinstance(content, dict):
        raise ValueError(f"{section} must be an object, got {type(content).__name__}")
    known = {f.name for kind in kinds for f in fields(kind)}
    unknown = sorted(content.keys() - known)
    if unknown:
        raise ValueError(
            f"{section}: no field {unknown[0]!r}; choose from {', '.join(sorted(known))}"
        )


def _check_required(section: str, content: Mapping[str, object], kind: type) -> None:
    for f in fields(kind):
        if f.name not in content and f.default is MISSING and f.default_factory is MISSING:
            raise ValueError(f"{section}: {f.name!r} is missing")


def _build(section: str, kind: type[Settings], content: dict[str, Any]) -> Settings:
    _check_fields(section, content, kind)
    _check_required(section, content, kind)
    frozen = {name: tuple(v) if isinstance(v, list) else v for name, v in content.items()}
    try:
        return kind(**frozen)
    except (TypeError, ValueError) as error:
        raise ValueError(f"{section}: {error}") from None
