"""Prompt sets as JSON files, to store, edit and share."""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path
from typing import Any

from ..foundation.checks import LONGEST_TEXT, LONGEST_WORD, require_length, require_words
from ..foundation.json_file import JsonError, parse_json, read_json
from .concept import ForgetConcept
from .mentions import occurs_in
from .pairs import PromptPair, PromptPairs

FORMAT = "unlearn prompts 1"
LARGEST = 20_000_000  # bytes of a file or characters of a text, which may come from a stranger
MOST_PAIRS = 20_000  # of each of the two lists
MOST_VALUES = 100  # of one pair: each is searched for in its prompts


def write_prompts(pairs: PromptPairs) -> str:
    """The prompts of the first concept, as text for ``read_prompts``."""
    content = {
        "format": FORMAT,
        "concept": asdict(pairs.concept),
        "dimensions": pairs.dimensions,
        "train": [asdict(pair) for pair in pairs.train],
        "test": [asdict(pair) for pair in pairs.test],
    }
    return json.dumps(content, indent=1, ensure_ascii=False) + "\n"


def read_prompt_file(file: Path, concept: ForgetConcept) -> PromptPairs:
    """Read the prompt set of ``concept`` from a file.

    Raises:
        ValueError: the file cannot be read, does not contain a prompt set, or is for another
            concept.
    """
    try:
        pairs = _prompts_of(read_json(file, LARGEST))
    except JsonError as error:
        raise ValueError(f"prompts: cannot read {file.name!r}: it {error}") from None
    except OSError as error:
        raise ValueError(f"prompts: cannot read {file.name!r} ({error})") from None
    require_concept(pairs, concept, repr(file.name))
    return pairs


def require_concept(
    pairs: PromptPairs, concept: ForgetConcept, where: str, cure: str = "choose other prompts"
) -> None:
    """Require that the prompts were created for ``concept``.

    They may have more synonyms and replacements than ``concept``: neighbours chosen during
    diversification, or words added by the person who shared them.

    Raises:
        ValueError: names the difference.
    """
    for name in ("name", "kind"):
        actual, expected = getattr(pairs.concept, name), getattr(concept, name)
        if actual != expected:
            raise ValueError(
                f"prompts: {where} is for another concept: its {name} is {actual!r} "
                f"and not {expected!r}; {cure}, or change the concept back"
            )
    for name in ("synonyms", "replacements"):
        present = getattr(pairs.concept, name)
        absent = [word for word in getattr(concept, name) if word not in present]
        if absent:
            raise ValueError(
                f"prompts: {where} was created without {', '.join(map(repr, absent))} among its "
                f"{name}; create the prompts again, or remove these words from the concept's {name}"
            )


def read_prompts(text: str) -> PromptPairs:
    """Parse a prompt set in the format of ``write_prompts``, which may have been edited. A value or
    replacement that no longer occurs in its prompt is omitted.

    Raises:
        ValueError: not JSON, not a prompt set, a forget prompt without the concept or a retain
            prompt with it; names the field.
    """
    try:
        content = parse_json(text, LARGEST)
    except JsonError as error:
        raise ValueError(f"prompts: the text {error}") from None
    return _prompts_of(content)


def _prompts_of(content: object) -> PromptPairs:
    if not isinstance(content, dict) or content.get("format") != FORMAT:
        raise ValueError(f"prompts: the file must contain 'format': {FORMAT!r}")
    fields = _object(content, "concept")
    concept = ForgetConcept(
        _text(fields, "concept.name", "name"),
        _text(fields, "concept.kind", "kind"),
        _texts(fields, "concept.synonyms", "synonyms"),
        _texts(fields, "concept.replacements", "replacements"),
    )
    dimensions = {
        name: _texts(_object(content, "dimensions"), f"dimensions.{name}", name)
        for name in _object(content, "dimensions")
    }
    train, test = (_pairs(content, name, concept) for name in ("train", "test"))
    return PromptPairs(concept, train, test, dimensions)


def _pairs(content: dict[str, Any], name: str, concept: ForgetConcept) -> tuple[PromptPair, ...]:
    rows = content.get(name)
    if not isinstance(rows, list) or not rows:
        raise ValueError(f"prompts: {name!r} must be a list of one pair or more")
    if len(rows) > MOST_PAIRS:
        raise ValueError(
            f"prompts: {name!r} must have {MOST_PAIRS} pairs or fewer, got {len(rows)}"
        )
    pairs = []
    for i, row in enumerate(rows):
        where = f"{name}[{i}]"
        if not isinstance(row, dict):
            raise ValueError(f"prompts: {where} must be an object, got {row!r:.80}")
        stored = _object(row, "values", where)
        if len(stored) > MOST_VALUES:
            raise ValueError(
                f"prompts: {where}.values must have {MOST_VALUES} values or fewer, got "
                f"{len(stored)}"
            )
        values = {key: _text(stored, f"{where}.values.{key:.40}", key) for key in stored}
        forget, retain = (
            _text(row, f"{where}.{key}", key, LONGEST_TEXT) for key in ("forget", "retain")
        )
        replacement = _text(row, f"{where}.replacement", "replacement")
        # After an edit, pictures must be judged by the words that the prompts contain now.
        pair = PromptPair(
            forget=forget,
            retain=retain,
            replacement=replacement if occurs_in(replacement, retain) else "",
            values={
                key: value
                for key, value in values.items()
                if occurs_in(value, forget) and occurs_in(value, retain)
            },
        )
        if not concept.has_word and pair.forget != pair.retain:
            raise ValueError(
                f"prompts: {where}: both prompts of a pair must be the same for a look, which no "
                f"word names, got {forget!r:.200} and {retain!r:.200}; edit or remove the pair"
            )
        if concept.has_word and not concept.is_mentioned_in(pair.forget):
            raise ValueError(
                f"prompts: {where}.forget does not mention {concept.name!r}, got {forget!r:.200}; "
                "add it, or remove the pair"
            )
        if concept.is_mentioned_in(pair.retain):
            raise ValueError(
                f"prompts: {where}.retain must not mention {concept.name!r}, "
                f"got {retain!r:.200}; remove the word, or the pair"
            )
        pairs.append(pair)
    return tuple(pairs)


def _object(content: dict[str, Any], name: str, where: str = "") -> dict[str, Any]:
    value = content.get(name)
    if not isinstance(value, dict):
        place = f"{where}.{name}" if where else name
        raise ValueError(f"prompts: {place} must be an object, got {value!r:.80}")
    return value


def _text(content: dict[str, Any], place: str, name: str, longest: int = LONGEST_WORD) -> str:
    value = content.get(name)
    if not isinstance(value, str):
        raise ValueError(f"prompts: {place} must be text, got {value!r:.80}")
    require_length(f"prompts: {place}", value, longest)
    return value


def _texts(content: dict[str, Any], place: str, name: str) -> tuple[str, ...]:
    value = content.get(name)
    if not isinstance(value, list) or not all(isinstance(word, str) for word in value):
        raise ValueError(f"prompts: {place} must be a list of texts, got {value!r:.80}")
    require_words(f"prompts: {place}", value, LONGEST_WORD)
    return tuple(value)
