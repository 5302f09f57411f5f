"""A whole job's settings, and the JSON file that holds them."""

from __future__ import annotations

import functools
import json
from collections.abc import Mapping
from dataclasses import dataclass, field, fields, replace
from pathlib import Path
from typing import Any, TypeVar

from .concepts import ForgetConcept, require_words
from .models.options import LoadOptions
from .presets import PRESETS
from .prompt_files import read_prompt_file
from .prompts import PromptPairs, diversify, together
from .settings import EvaluationSettings, GenerationSettings, UnlearnSettings


@dataclass(frozen=True)
class PromptSettings:
    """Arguments of ``diversify``; where ``templates`` or ``dimensions`` are left out, those of the
    preset for the concept's kind. ``file`` is a prompt set to read in place of all others."""

    templates: tuple[str, ...] = ()
    dimensions: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    train_count: int = 240
    test_count: int = 64
    test_share: float = 0.25
    invented_names: int = 0
    gibberish_names: int = 0
    seed: int = 0
    file: Path | None = None

    def __post_init__(self) -> None:
        require_words("templates", self.templates)
        if not isinstance(self.dimensions, Mapping):
            raise ValueError(f"dimensions must be an object, got {self.dimensions!r:.80}")
        for name, values in self.dimensions.items():
            require_words(f"dimensions.{name}", values)
        for name in ("train_count", "test_count", "invented_names", "gibberish_names", "seed"):
            value = getattr(self, name)
            if not isinstance(value, int) or isinstance(value, bool) or value < 0:
                raise ValueError(f"{name} must be a whole number, 0 or more, got {value!r}")
        if not isinstance(self.test_share, (int, float)):
            raise ValueError(f"test_share must be a number, got {self.test_share!r}")
        if self.file is not None and not isinstance(self.file, (str, Path)):
            raise ValueError(f"file must be the name of a file, got {self.file!r}")


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
    loading: LoadOptions = field(default_factory=LoadOptions)
    generation: GenerationSettings = field(default_factory=GenerationSettings)
    unlearn: UnlearnSettings = field(default_factory=UnlearnSettings)
    evaluation: EvaluationSettings = field(default_factory=EvaluationSettings)

    def pairs(self) -> PromptPairs:
        """The diversified prompts of every concept.

        Raises:
            ValueError: prompts that cannot be, or a file of prompts for another concept.
        """
        sets = [_prompts(self.concept, self.prompts)]
        sets += [_prompts(further.concept, further.prompts) for further in self.also]
        return functools.reduce(together, sets)


def _prompts(concept: ForgetConcept, settings: PromptSettings) -> PromptPairs:
    if settings.file is not None:
        return read_prompt_file(settings.file, concept)
    preset = PRESETS[concept.kind]
    return diversify(
        concept,
        settings.templates or preset.templates,
        settings.dimensions or preset.dimensions,
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
    sections = {
        "concept": ForgetConcept,
        "prompts": PromptSettings,
        "loading": LoadOptions,
        "generation": GenerationSettings,
        "unlearn": UnlearnSettings,
    }
    _check_fields("settings", content, JobSettings)
    for name in ("model", "concept"):
        if name not in content:
            raise ValueError(f"settings: {name!r} is missing in {file.name!r}")
    parsed: dict[str, Any] = {
        name: _build(name, kind, content[name])
        for name, kind in sections.items()
        if name in content
    }
    if not isinstance(content["model"], str):
        raise ValueError(f"model must be the path of a model, got {content['model']!r}")
    if "evaluation" in content:
        _check_fields("evaluation", content["evaluation"], EvaluationSettings)
        evaluation = dict(content["evaluation"])
        drawing = evaluation.pop("generation", None)
        if drawing is not None:
            evaluation["generation"] = _build("evaluation.generation", GenerationSettings, drawing)
        built = _build("evaluation", EvaluationSettings, evaluation)
        if built.scorer is not None:
            built = replace(built, scorer=file.parent / built.scorer)
        parsed["evaluation"] = built
    loading = parsed.get("loading")
    if loading is not None and loading.vae is not None:
        parsed["loading"] = replace(loading, vae=file.parent / loading.vae)
    if "also" in content:
        if not isinstance(content["also"], list):
            raise ValueError(f"also: wanted a list, got {type(content['also']).__name__}")
        parsed["also"] = tuple(
            _further(i, part, file.parent) for i, part in enumerate(content["also"])
        )
    if "prompts" in parsed:
        parsed["prompts"] = _beside(parsed["prompts"], file.parent)
    return JobSettings(model=file.parent / content["model"], **parsed)


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


def _check_fields(section: str, content: object, kind: type) -> None:
    if not isinstance(content, dict):
        raise ValueError(f"{section}: wanted an object, got {type(content).__name__}")
    known = {f.name for f in fields(kind)}
    unknown = sorted(content.keys() - known)
    if unknown:
        raise ValueError(
            f"{section}: no field {unknown[0]!r}, choose from {', '.join(sorted(known))}"
        )


def _build(section: str, kind: type[Settings], content: dict[str, Any]) -> Settings:
    _check_fields(section, content, kind)
    frozen = {name: tuple(v) if isinstance(v, list) else v for name, v in content.items()}
    try:
        return kind(**frozen)
    except TypeError as error:
        raise ValueError(f"{section}: {error}") from None
