"""Prompt sets as JSON, to keep, edit and share."""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path
from typing import Any

from .concept import ForgetConcept
from .english import stands_in
from .pairs import PromptPair, PromptPairs

FORMAT = "unlearn prompts 1"
LARGEST = 20_000_000  # bytes of a file, characters of a text; either may be a stranger's


def write_prompts(pairs: PromptPairs) -> str:
    """The text of a file that ``read_prompts`` reads: the first concept's prompts."""
    content = {
        "format": FORMAT,
        "concept": asdict(pairs.concept),
        "dimensions": pairs.dimensions,
        "train": [asdict(pair) for pair in pairs.train],
        "test": [asdict(pair) for pair in pairs.test],
    }
    return json.dumps(content, indent=1, ensure_ascii=False) + "\n"


def read_prompt_file(file: Path, concept: ForgetConcept) -> PromptPairs:
    """The prompt set of a file that was made for ``concept``.

    Raises:
        ValueError: the file cannot be read, is none that ``read_prompts`` takes, or is for another
            concept.
    """
    try:
        if file.stat().st_size > LARGEST:
            raise ValueError(f"prompts: {file.name!r} is larger than any prompt set")
        pairs = read_prompts(file.read_text(encoding="utf-8-sig"))
    except (OSError, UnicodeDecodeError) as error:
        raise ValueError(f"prompts: cannot read {file.name!r} ({error})") from None
    require_concept(pairs, concept, repr(file.name))
    return pairs


def require_concept(
    pairs: PromptPairs, concept: ForgetConcept, where: str, cure: str = "choose other prompts"
) -> None:
    """Refuse prompts that were made for another concept. They may know more synonyms and
    replacements than ``concept``: neighbours that were found when they were made, or what somebody
    has found out who shares them.

    Raises:
        ValueError: naming what differs.
    """
    for name in ("name", "kind"):
        given, wanted = getattr(pairs.concept, name), getattr(concept, name)
        if given != wanted:
            raise ValueError(
                f"prompts: {where} was made for another concept: its {name} is {given!r} "
                f"and not {wanted!r}; {cure}, or change the concept back"
            )
    for name in ("synonyms", "replacements"):
        known = getattr(pairs.concept, name)
        lacking = [word for word in getattr(concept, name) if word not in known]
        if lacking:
            raise ValueError(
                f"prompts: {where} was made without {', '.join(map(repr, lacking))} among its "
                f"{name}; make the prompts again, or take that out of the concept's {name}"
            )


def read_prompts(text: str) -> PromptPairs:
    """The prompt set that ``write_prompts`` wrote, or somebody else. A value or replacement that
    its prompt does not hold any more is left out.

    Raises:
        ValueError: not JSON, not a prompt set, a forget prompt without the concept or a retain
            prompt with it; names the field.
    """
    if len(text) > LARGEST:
        raise ValueError(f"prompts: {len(text)} characters are more than any prompt set has")
    try:
        content = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise ValueError(f"prompts: not JSON ({error})") from None
    if not isinstance(content, dict) or content.get("format") != FORMAT:
        raise ValueError(f"prompts: wanted a file with 'format': {FORMAT!r}")
    given = _object(content, "concept")
    concept = ForgetConcept(
        _text(given, "concept.name", "name"),
        _text(given, "concept.kind", "kind"),
        _texts(given, "concept.synonyms", "synonyms"),
        _texts(given, "concept.replacements", "replacements"),
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
        raise ValueError(f"prompts: {name!r} must list one pair or more")
    pairs = []
    for i, row in enumerate(rows):
        where = f"{name}[{i}]"
        if not isinstance(row, dict):
            raise ValueError(f"prompts: {where} must be an object, got {row!r:.80}")
        found = _object(row, "values", where)
        values = {key: _text(found, f"{where}.values.{key}", key) for key in found}
        forget, retain, replacement = (
            _text(row, f"{where}.{key}", key) for key in ("forget", "retain", "replacement")
        )
        # Somebody may have rewritten them, and their pictures must be judged by what they ask for.
        pair = PromptPair(
            forget=forget,
            retain=retain,
            replacement=replacement if stands_in(replacement, retain) else "",
            values={
                key: value
                for key, value in values.items()
                if stands_in(value, forget) and stands_in(value, retain)
            },
        )
        if not concept.is_mentioned_in(pair.forget):
            raise ValueError(
                f"prompts: {where}.forget does not mention {concept.name!r}, got {forget!r:.200}: "
                "put it in, or take the pair out"
            )
        if concept.is_mentioned_in(pair.retain):
            raise ValueError(
                f"prompts: {where}.retain is to be kept but has {concept.name!r}, "
                f"got {retain!r:.200}: take it out, or the pair"
            )
        pairs.append(pair)
    return tuple(pairs)


def _object(content: dict[str, Any], name: str, where: str = "") -> dict[str, Any]:
    value = content.get(name)
    if not isinstance(value, dict):
        place = f"{where}.{name}" if where else name
        raise ValueError(f"prompts: {place} must be an object, got {value!r:.80}")
    return value


def _text(content: dict[str, Any], place: str, name: str) -> str:
    value = content.get(name)
    if not isinstance(value, str):
        raise ValueError(f"prompts: {place} must be text, got {value!r:.80}")
    return value


def _texts(content: dict[str, Any], place: str, name: str) -> tuple[str, ...]:
    value = content.get(name)
    if not isinstance(value, list) or not all(isinstance(word, str) for word in value):
        raise ValueError(f"prompts: {place} must be a list of texts, got {value!r:.80}")
    return tuple(value)
