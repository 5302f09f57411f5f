"""Diversification: paired prompts with and without the concept from a grid of dimensions.

Section 4.2 and the appendix of Ko et al. 2024: every dimension's values are split into disjoint
train and test values, so that a test prompt consists of words that were never trained on together
with the concept.
"""

from __future__ import annotations

import itertools
import math
import random
import re
import string
from collections.abc import Mapping, Sequence

from ..foundation.checks import LONGEST_TEXT, LONGEST_WORD, check_whole, require_words
from ..foundation.lists import COLONS, split_list
from ..foundation.plurals import count_of
from .concept import ForgetConcept
from .english import with_articles
from .made_up_names import LARGEST, gibberish, made_up_names
from .pairs import PromptPair, PromptPairs, distinct, folded

CONCEPT_FIELD = "concept"
# Templates and dimensions may come from a stranger's workflow and must not exhaust the memory.
LARGEST_GRID = 1_000_000  # combinations of values
LARGEST_COUNT = 100_000  # pairs of prompts


def parse_dimensions(text: str) -> dict[str, tuple[str, ...]]:
    """Parse ``name: value, value`` lines, the format of the node.

    Raises:
        ValueError: names the line that cannot be read.
    """
    dimensions: dict[str, tuple[str, ...]] = {}
    for line in filter(None, map(str.strip, text.splitlines())):
        name, *values = map(str.strip, re.split(f"[{COLONS}]", line, maxsplit=1))
        parsed = distinct(split_list("".join(values)))
        if not name.isidentifier() or not parsed:
            raise ValueError(f"dimensions: cannot read {line!r}; write 'object: cat, dog, house'")
        if name in dimensions:
            raise ValueError(
                f"dimensions: {name!r} is listed twice; put all its values on one line"
            )
        dimensions[name] = parsed
    return dimensions


def split_values(
    dimensions: Mapping[str, Sequence[str]], test_share: float, rng: random.Random
) -> tuple[dict[str, tuple[str, ...]], dict[str, tuple[str, ...]]]:
    """Split every dimension into disjoint train and test values, at least one on each side.

    A value that occurs in several dimensions is on the same side in all of them; otherwise test
    prompts would contain words from training.

    Raises:
        ValueError: a dimension has fewer than two values, or those it shares with earlier
            dimensions leave one of its sides empty.
    """
    train: dict[str, tuple[str, ...]] = {}
    test: dict[str, tuple[str, ...]] = {}
    is_test: dict[str, bool] = {}  # the side of each value, for all dimensions so far
    for name, all_values in dimensions.items():
        values = distinct(all_values)
        if len(values) < 2:
            raise ValueError(
                f"dimensions: {name!r} has {count_of(len(values), 'value')}; "
                "it needs 2 or more, because some are used only for testing"
            )
        shuffled = rng.sample(values, len(values))
        held_out = min(len(values) - 1, max(1, round(test_share * len(values))))
        # Test values of earlier dimensions first, then new values in random order, then train ones.
        shuffled.sort(key=lambda value: {True: 0, None: 1, False: 2}[is_test.get(folded(value))])
        held_out = max(held_out, sum(is_test.get(folded(value), False) for value in values))
        test[name] = tuple(v for v in shuffled[:held_out] if is_test.get(folded(v), True))
        tested = set(test[name])
        train[name] = tuple(v for v in shuffled if v not in tested)
        if not test[name] or not train[name]:
            raise ValueError(
                f"dimensions: all values of {name!r} also occur in other dimensions, and all of "
                "them are used for training, or all for testing; add other values, or change the "
                "seed"
            )
        is_test |= {folded(value): value in tested for value in values}
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
    """Paired forget and retain prompts from the grid of ``dimensions``.

    Args:
        templates: prompts with ``{concept}`` and a ``{name}`` field for each dimension they use;
            without ``{concept}`` for a look, which no word names: both prompts of its pairs are the
            same.
        dimensions: name -> values for the field of that name.
        train_count: number of train pairs; if the grid is smaller, its combinations repeat evenly.
        test_count: number of test pairs.
        test_share: share of each dimension's values held out for the test prompts, 0..1.
        invented_names, gibberish_names: number of made-up names that are used as further
            replacements of the concept. They teach the model to forget this name only, and not
            names in general.
        seed: of the split and the order. The test pairs depend on it, but not on ``train_count``.

    Raises:
        ValueError: a template without ``{concept}`` (with it for a look) or with an unknown field,
            or an empty grid.
    """
    require_words("templates", list(templates))
    for name, values in dimensions.items():
        require_words(f"dimensions.{name}", list(values), LONGEST_WORD)
    templates = [t.strip() for t in templates if t.strip()]
    dimensions = {name: distinct(values) for name, values in dimensions.items()}
    name_counts = {"invented_names": invented_names, "gibberish_names": gibberish_names}
    _check(concept, templates, dimensions, train_count, test_count, test_share, name_counts)
    train, test = split_values(dimensions, test_share, random.Random(seed))
    # Each set has its own generator, so that the held-out prompts do not depend on train_count.
    train_rng, test_rng = random.Random(f"train {seed}"), random.Random(f"test {seed}")
    made_up = (*made_up_names(invented_names, seed), *gibberish(gibberish_names, seed))
    replacements = (*concept.replacements, *made_up) or ("",)
    if not concept.has_word:
        replacements = ("",)
    words = (concept.name, *concept.synonyms, *replacements)
    for template in templates:
        _check_length(template, {**dimensions, CONCEPT_FIELD: words})
    return PromptPairs(
        concept,
        _pairs(concept, replacements, templates, train, train_count, train_rng),
        _pairs(concept, replacements, templates, test, test_count, test_rng),
        dimensions,
    )


def _check(
    concept: ForgetConcept,
    templates: Sequence[str],
    dimensions: Mapping[str, Sequence[str]],
    train_count: int,
    test_count: int,
    test_share: float,
    name_counts: Mapping[str, int],
) -> None:
    if not templates:
        raise ValueError("templates: none given; write one such as 'a cat in {concept} style'")
    for template in templates:
        fields = _fields(template)
        if not concept.has_word and CONCEPT_FIELD in fields:
            raise ValueError(
                f"templates: {template!r} contains {{concept}}, but no word names a look; remove it"
            )
        if concept.has_word and CONCEPT_FIELD not in fields:
            raise ValueError(
                f"templates: {template!r} does not contain the concept; put {{concept}} where it "
                "belongs"
            )
        unknown = fields - {CONCEPT_FIELD} - set(dimensions)
        if unknown:
            raise ValueError(
                f"templates: {template!r} uses {sorted(unknown)[0]!r}, "
                f"which is not a dimension ({', '.join(dimensions) or 'none given'}); "
                "add a dimension of that name, or change the template"
            )
    if not dimensions:
        raise ValueError("dimensions: none given; write one such as 'object: cat, dog, house'")
    if CONCEPT_FIELD in dimensions:
        raise ValueError("dimensions: 'concept' is reserved for the concept; choose another name")
    combinations = math.prod(map(len, dimensions.values()))
    if combinations > LARGEST_GRID:
        raise ValueError(
            f"dimensions: their values have {combinations} combinations, the limit is "
            f"{LARGEST_GRID}; remove a dimension or some values"
        )
    for name, count in name_counts.items():
        if not 0 <= count <= LARGEST:
            raise ValueError(f"{name} must be 0 to {LARGEST}, got {count}")
    for name, count in (("train_count", train_count), ("test_count", test_count)):
        check_whole(name, count, 1, LARGEST_COUNT)
    if not 0 < test_share < 1:
        raise ValueError(f"test_share must be between 0 and 1, got {test_share}")


def _check_length(template: str, fillings: Mapping[str, Sequence[str]]) -> None:
    """Check the length of the longest prompt that the template can produce."""
    longest = {name: max(map(len, values)) for name, values in fillings.items()}
    fields = [name for _, name, _, _ in string.Formatter().parse(template) if name is not None]
    length = len(template) + sum(longest[name] for name in fields)
    if length > LONGEST_TEXT:
        raise ValueError(
            f"templates: {template[:80]!r}… expands to {length} characters; "
            f"a prompt has at most {LONGEST_TEXT}"
        )


def _fields(template: str) -> set[str]:
    """The ``{field}`` names of a template. It may come from a stranger's workflow, so conversions
    and format specs are refused (``{object:>999999999}`` would exhaust the memory)."""
    try:
        parsed = list(string.Formatter().parse(template))
    except ValueError as error:
        raise ValueError(f"templates: {template!r} has an unpaired brace ({error})") from None
    for _, name, spec, conversion in parsed:
        if spec or conversion:
            raise ValueError(
                f"templates: {template!r}: nothing may follow the name in {{{name}}}; remove it"
            )
    return {name for _, name, _, _ in parsed if name is not None}


def _pairs(
    concept: ForgetConcept,
    replacements: Sequence[str],
    templates: Sequence[str],
    dimensions: Mapping[str, Sequence[str]],
    count: int,
    rng: random.Random,
) -> tuple[PromptPair, ...]:
    """``count`` pairs from the whole grid in random order, repeated as often as necessary.
    Templates, concept words and replacements alternate, so that all are equally frequent. Fewer
    pairs are the first of more pairs, whose pictures can then come from the cache."""
    shuffled = rng.sample(replacements, len(replacements))
    grid = list(itertools.product(*dimensions.values()))
    order = [c for _ in range(math.ceil(count / len(grid))) for c in rng.sample(grid, len(grid))]
    words = (concept.name, *concept.synonyms)
    period = math.lcm(len(templates), len(shuffled))
    pairs = []
    for i, combination in enumerate(order[:count]):
        values = dict(zip(dimensions, combination, strict=True))
        # Templates shift by one after each period, so that each is combined with every
        # replacement. The word changes after each pass through the replacements.
        template = templates[(i + i // period) % len(templates)]
        names = _fields(template)
        word = words[i // len(shuffled) % len(words)]
        replacement = shuffled[i % len(shuffled)]
        forget = _fill(template, word, values)
        if not concept.has_word:
            retain = forget
        elif replacement:
            retain = _fill(template, replacement, values)
        else:
            retain = concept.replaced_in(forget, "")
        pair = PromptPair(
            forget=forget,
            retain=retain,
            replacement=replacement,
            values={k: v for k, v in values.items() if k in names},
        )
        if concept.has_word and not concept.is_mentioned_in(pair.forget):
            raise ValueError(
                f"templates: in {pair.forget!r} from {template!r}, the concept is not a separate "
                "word; put spaces around {concept}"
            )
        if not concept.has_word and concept.is_mentioned_in(forget):
            raise ValueError(
                f"templates: the prompt {forget!r} mentions {concept.name!r}, but no word names a "
                "look; remove it, or give the look another name"
            )
        if concept.is_mentioned_in(pair.retain):
            raise ValueError(
                f"templates: the retain prompt {pair.retain!r} mentions {concept.name!r}; "
                "remove it from the template or the dimensions"
            )
        pairs.append(pair)
    return tuple(pairs)


def _fill(template: str, concept: str, values: Mapping[str, str]) -> str:
    filled = template.format_map({**values, CONCEPT_FIELD: concept})
    return with_articles(" ".join(filled.split()), (*values.values(), concept))
