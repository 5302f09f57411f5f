"""Diversification: a grid of dimensions becomes paired prompts with and without the concept.

Section 4.2 and the appendix of Ko et al. 2024: every dimension's values are split into disjoint
train and test values, so that a test prompt is made of words that unlearning never saw together
with the concept.
"""

from __future__ import annotations

import itertools
import math
import random
import string
from collections.abc import Mapping, Sequence

from .concept import ForgetConcept
from .english import with_articles
from .made_up_names import LARGEST, gibberish, made_up_names
from .pairs import PromptPair, PromptPairs, distinct, folded

CONCEPT_FIELD = "concept"
# Templates and dimensions may come from a stranger's workflow, and must not eat the memory.
LARGEST_GRID = 1_000_000  # combinations of values
LONGEST_PROMPT = 10_000  # characters


def parse_dimensions(text: str) -> dict[str, tuple[str, ...]]:
    """Read ``name: value, value`` lines, as the node and settings files write them.

    Raises:
        ValueError: naming the line that cannot be read.
    """
    dimensions: dict[str, tuple[str, ...]] = {}
    for line in filter(None, map(str.strip, text.splitlines())):
        name, colon, values = line.partition(":")
        parsed = distinct(filter(None, map(str.strip, values.split(","))))
        if not colon or not name.strip().isidentifier() or not parsed:
            raise ValueError(f"dimensions: cannot read {line!r}, write 'object: cat, dog, house'")
        if name.strip() in dimensions:
            raise ValueError(f"dimensions: {name.strip()!r} is there twice, write it on one line")
        dimensions[name.strip()] = parsed
    return dimensions


def split_values(
    dimensions: Mapping[str, Sequence[str]], test_share: float, rng: random.Random
) -> tuple[dict[str, tuple[str, ...]], dict[str, tuple[str, ...]]]:
    """Disjoint train and test values, at least one of each dimension on either side. What stands in
    two dimensions is on the same side in both: else the test would ask for what was trained on."""
    train: dict[str, tuple[str, ...]] = {}
    test: dict[str, tuple[str, ...]] = {}
    side: dict[str, bool] = {}  # whether a value is held out, wherever it stands
    for name, given in dimensions.items():
        values = distinct(given)
        if len(values) < 2:
            raise ValueError(
                f"dimensions: {name!r} has {len(values)} value(s), "
                "needs 2 or more to hold some back for testing"
            )
        shuffled = rng.sample(values, len(values))
        held_out = min(len(values) - 1, max(1, round(test_share * len(values))))
        # Those that are held out already, then the free ones as chance has it, then the rest.
        shuffled.sort(key=lambda value: {True: 0, None: 1, False: 2}[side.get(folded(value))])
        held_out = max(held_out, sum(side.get(folded(value), False) for value in values))
        test[name] = tuple(v for v in shuffled[:held_out] if side.get(folded(v), True))
        train[name] = tuple(v for v in shuffled if v not in test[name])
        if not test[name] or not train[name]:
            raise ValueError(
                f"dimensions: all of {name!r} stands in other dimensions, too, on one side of the "
                "split into train and test; give it words of its own, or another seed"
            )
        side |= {folded(value): value in test[name] for value in values}
    return train, test


def diversify(
    concept: ForgetConcept,
    templates: Sequence[str],
    dimensions: Mapping[str, Sequence[str]],
    *,
    train_count: int,
    test_count: int,
    test_share: float = 0.25,
    invented_names: int = 0,
    gibberish_names: int = 0,
    seed: int = 0,
) -> PromptPairs:
    """Paired forget and retain prompts over the grid of ``dimensions``.

    Args:
        templates: prompts with ``{concept}`` and one ``{dimension}`` field for each that they use.
        dimensions: name -> values that fill the field of that name.
        train_count: number of train pairs; combinations repeat, evenly, when the grid is smaller.
        test_count: number of test pairs.
        test_share: share of each dimension's values held out for the test prompts, 0..1.
        invented_names, gibberish_names: how many made-up names may take the concept's place beside
            its replacements, so that the model learns to let go of a name and not of these.
        seed: for the split and the order.

    Raises:
        ValueError: a template without ``{concept}`` or with an unknown field, an empty grid.
    """
    templates = [t.strip() for t in templates if t.strip()]
    dimensions = {name: distinct(values) for name, values in dimensions.items()}
    how_many = {"invented_names": invented_names, "gibberish_names": gibberish_names}
    _check(templates, dimensions, train_count, test_count, test_share, how_many)
    rng = random.Random(seed)
    train, test = split_values(dimensions, test_share, rng)
    made_up = (*made_up_names(invented_names, seed), *gibberish(gibberish_names, seed))
    replacements = (*concept.replacements, *made_up) or ("",)
    words = (concept.name, *concept.synonyms, *replacements)
    for template in templates:
        _check_length(template, {**dimensions, CONCEPT_FIELD: words})
    return PromptPairs(
        concept,
        _draw(concept, replacements, templates, train, train_count, rng),
        _draw(concept, replacements, templates, test, test_count, rng),
        dimensions,
    )


def _check(
    templates: Sequence[str],
    dimensions: Mapping[str, Sequence[str]],
    train_count: int,
    test_count: int,
    test_share: float,
    made_up: Mapping[str, int],
) -> None:
    if not templates:
        raise ValueError("templates: none given, write one such as 'a cat in {concept} style'")
    for template in templates:
        fields = _fields(template)
        if CONCEPT_FIELD not in fields:
            raise ValueError(
                f"templates: the concept is not in {template!r}, put {{concept}} where it belongs"
            )
        unknown = fields - {CONCEPT_FIELD} - set(dimensions)
        if unknown:
            raise ValueError(
                f"templates: {template!r} uses {sorted(unknown)[0]!r}, "
                f"which is no dimension ({', '.join(dimensions) or 'none given'}); "
                "give it values there, or change the template"
            )
    if not dimensions:
        raise ValueError("dimensions: none given, write one such as 'object: cat, dog, house'")
    if CONCEPT_FIELD in dimensions:
        raise ValueError("dimensions: 'concept' stands for the concept, choose another name")
    combinations = math.prod(map(len, dimensions.values()))
    if combinations > LARGEST_GRID:
        raise ValueError(
            f"dimensions: {combinations} combinations of their values, at most {LARGEST_GRID} can "
            "be shuffled; take out a dimension or some of the values"
        )
    for name, count in made_up.items():
        if not 0 <= count <= LARGEST:
            raise ValueError(f"{name} must be 0 to {LARGEST}, got {count}")
    for name, count in (("train_count", train_count), ("test_count", test_count)):
        if count < 1:
            raise ValueError(f"{name} must be 1 or more, got {count}")
    if not 0 < test_share < 1:
        raise ValueError(f"test_share must be between 0 and 1, got {test_share}")


def _check_length(template: str, fillings: Mapping[str, Sequence[str]]) -> None:
    """Of the longest prompt that the template can become."""
    longest = {name: max(map(len, values)) for name, values in fillings.items()}
    fields = [name for _, name, _, _ in string.Formatter().parse(template) if name is not None]
    length = len(template) + sum(longest[name] for name in fields)
    if length > LONGEST_PROMPT:
        raise ValueError(
            f"templates: {template[:80]!r}… becomes {length} characters long, "
            f"at most {LONGEST_PROMPT} make a prompt"
        )


def _fields(template: str) -> set[str]:
    """The ``{field}`` names of a template, which may come from a stranger's workflow: conversions
    and format specs are refused (``{object:>999999999}`` would eat the memory)."""
    try:
        parsed = list(string.Formatter().parse(template))
    except ValueError as error:
        raise ValueError(f"templates: {template!r} has an unpaired brace ({error})") from None
    for _, name, spec, conversion in parsed:
        if spec or conversion:
            raise ValueError(f"templates: {template!r}: nothing may follow the name in {{{name}}}")
    return {name for _, name, _, _ in parsed if name is not None}


def _draw(
    concept: ForgetConcept,
    replacements: Sequence[str],
    templates: Sequence[str],
    dimensions: Mapping[str, Sequence[str]],
    count: int,
    rng: random.Random,
) -> tuple[PromptPair, ...]:
    """``count`` pairs: the whole grid in random order, again and again; templates, concept words
    and replacements each in turn, so that all are equally frequent."""
    grid = list(itertools.product(*dimensions.values()))
    order = [c for _ in range(math.ceil(count / len(grid))) for c in rng.sample(grid, len(grid))]
    turns = rng.sample(replacements, len(replacements))
    words = (concept.name, *concept.synonyms)
    rounds = math.lcm(len(templates), len(turns))
    pairs = []
    for i, combination in enumerate(order[:count]):
        values = dict(zip(dimensions, combination, strict=True))
        # Shifted once a round, so that every template meets every replacement. A word stays until
        # it has met every replacement.
        template = templates[(i + i // rounds) % len(templates)]
        used = _fields(template)
        word = words[i // len(turns) % len(words)]
        replacement = turns[i % len(turns)]
        forget = _fill(template, word, values)
        if replacement:
            retain = _fill(template, replacement, values)
        else:
            retain = concept.replaced_in(forget, "")
        pair = PromptPair(
            forget=forget,
            retain=retain,
            replacement=replacement,
            values={k: v for k, v in values.items() if k in used},
        )
        if not concept.is_mentioned_in(pair.forget):
            raise ValueError(
                f"templates: {template!r} hides the concept in {pair.forget!r}, "
                "put spaces around {concept}"
            )
        if concept.is_mentioned_in(pair.retain):
            raise ValueError(
                f"templates: {pair.retain!r} is to be kept but mentions {concept.name!r}; "
                "take it out of the template or of the dimensions"
            )
        pairs.append(pair)
    return tuple(pairs)


def _fill(template: str, concept: str, values: Mapping[str, str]) -> str:
    filled = template.format_map({**values, CONCEPT_FIELD: concept})
    return with_articles(" ".join(filled.split()), (*values.values(), concept))
