"""Prompts as chunks of weighted tokens, divided as in ComfyUI."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from .errors import UnsupportedError
from .prompt_syntax import weighted_parts

LARGEST_WORD = 8
"""Tokens: shorter parts of a prompt are never divided between two chunks."""
WeightedTokens = list[tuple[int, float]]


@dataclass(frozen=True)
class Chunk:
    """As many tokens as the text encoder reads at once, with their weights."""

    tokens: list[int]
    weights: list[float]


def part_tokens(tokenizer: Any, prompts: Sequence[str]) -> list[list[WeightedTokens]]:
    """The tokens of each weighted part of each prompt, without start and end.

    Raises:
        UnsupportedError: syntax that cannot be followed.
    """
    parts = [weighted_parts(prompt) for prompt in prompts]
    texts = [text for of_prompt in parts for text, _ in of_prompt]
    encoded = tokenizer(texts, add_special_tokens=False, verbose=False).input_ids if texts else []
    tokens = iter(encoded)
    return [[[(t, weight) for t in next(tokens)] for _, weight in row] for row in parts]


def chunks(tokenizer: Any, prompts: Sequence[str]) -> list[list[Chunk]]:
    """The chunks of each prompt.

    Raises:
        UnsupportedError: syntax that cannot be followed.
    """
    room = tokenizer.model_max_length - 2  # without start and end
    return [
        [_chunk(tokenizer, tokens) for tokens in _divided(parts, room)]
        for parts in part_tokens(tokenizer, prompts)
    ]


def check_length(tokenizer: Any, prompts: Sequence[str], most: int) -> None:
    """Check that no prompt has more than ``most`` tokens, without start and end.

    Raises:
        UnsupportedError: a prompt has more, or syntax that cannot be followed.
    """
    for prompt, parts in zip(prompts, part_tokens(tokenizer, prompts), strict=True):
        count = sum(map(len, parts))
        if count > most:
            raise UnsupportedError(
                f"prompts: a prompt for this model has at most {most} tokens, got {count} in "
                f"{prompt!r:.80}; shorten it"
            )


def empty_chunk(tokenizer: Any) -> Chunk:
    return _chunk(tokenizer, [])


def _divided(parts: Sequence[WeightedTokens], room: int) -> list[WeightedTokens]:
    """The tokens of each chunk, at least one chunk. A long part is divided where a chunk is full; a
    short one that does not fit begins the next chunk."""
    divided: list[WeightedTokens] = [[]]
    for part in parts:
        rest, is_long = part, len(part) >= LARGEST_WORD
        while len(rest) + len(divided[-1]) > room:
            taken = room - len(divided[-1]) if is_long else 0
            divided[-1].extend(rest[:taken])
            rest = rest[taken:]
            divided.append([])
        divided[-1].extend(rest)
    return divided


def _chunk(tokenizer: Any, tokens: WeightedTokens) -> Chunk:
    padding = tokenizer.model_max_length - len(tokens) - 2
    return Chunk(
        [
            tokenizer.bos_token_id,
            *(token for token, _ in tokens),
            tokenizer.eos_token_id,
            *[tokenizer.pad_token_id] * padding,
        ],
        [1.0, *(weight for _, weight in tokens), *[1.0] * (padding + 1)],
    )
