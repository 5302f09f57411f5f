"""Seeded mutations of files and texts: of their bytes, and of the values of JSON."""

from __future__ import annotations

import copy
import json
import random
import struct
from collections.abc import Sequence
from typing import Any

NASTY: tuple[Any, ...] = (
    None, True, False, 0, -1, 1, 2**31, 2**63, -(2**63), 10**400, 1e308, -0.0, 0.5, 1e-320,
    "", " ", "a", "\0", "../..", "/etc/passwd", "C:\\x", "nul", "a" * 2000, "\u202e",
    "\U0001f600", "{concept}", "{object:>999999999}", "{0.__class__}", "%s%n", "<script>",
    "ink", "owner/name", "https://example.invalid/x", [], {}, [[]], [None], [8, 8], ["a", 1],
    {"a": {"b": []}},
    float("nan"), float("inf"), [1] * 300, ["cat"] * 300, {str(i): i for i in range(200)},
)  # fmt: skip
PIECES = (
    b"\0", b"\xff\xfe", b"\xef\xbb\xbf", b"{", b"}", b"[" * 200, b'"', b"\\u0000", b":", b",",
    b"NaN", b"1e999", b"<html>", b"PK\x03\x04", b"\x80\x04", b"GGUF", b"IHDR", b"\xff\xd8\xff",
    b"\n\n", b"\r\n", b": ", b"{concept}", b"9" * 50, struct.pack("<Q", 2**63), b"\x7f" * 8,
)  # fmt: skip


def mutated(seed: bytes, others: Sequence[bytes], rng: random.Random) -> bytes:
    """A mutation of ``seed``; ``others`` are further examples of the same kind."""
    content = seed
    if rng.random() < 0.6 and (changed := _changed_json(seed, rng)) is not None:
        content = changed
        if rng.random() < 0.7:
            return content
    for _ in range(rng.choice((1, 1, 1, 2, 4, 16))):
        content = _changed_bytes(content, others, rng)
    return content


def _changed_bytes(content: bytes, others: Sequence[bytes], rng: random.Random) -> bytes:
    data, place = bytearray(content), rng.randrange(len(content) + 1)
    kind = rng.randrange(7)
    if kind == 0 and place < len(data):
        data[place] ^= 1 << rng.randrange(8)
    elif kind == 1 and place < len(data):
        data[place] = rng.randrange(256)
    elif kind == 2:
        del data[place:]
    elif kind == 3:
        del data[place : place + rng.randrange(1, 20)]
    elif kind == 4:
        data[place:place] = rng.choice(PIECES)
    elif kind == 5:
        data[place:place] = data[place : place + rng.randrange(1, 200)] * rng.randrange(1, 8)
    else:
        other = rng.choice(others)
        data[place:] = other[rng.randrange(len(other) + 1) :]
    return bytes(data)


def _changed_json(seed: bytes, rng: random.Random) -> bytes | None:
    """The JSON in a text, or in the header of a safetensors file, with other values; None if
    there is none."""
    start = 8 if seed[8:9] == b"{" and seed[:1] != b"{" else 0
    length = struct.unpack("<Q", seed[:8])[0] if start else len(seed)
    try:
        content = json.loads(seed[start : start + length])
    except (ValueError, RecursionError):
        return None
    content = changed_value(content, rng)
    text = json.dumps(content).encode()
    return struct.pack("<Q", len(text)) + text + seed[start + length :] if start else text


def changed_value(content: Any, rng: random.Random) -> Any:
    """JSON with one to four other values, missing or further entries."""
    content = copy.deepcopy(content)
    for _ in range(rng.choice((1, 1, 2, 4))):
        places = list(_places(content))
        if not places:
            return rng.choice(NASTY)
        parent, key = rng.choice(places)
        action = rng.random()
        if action < 0.6:
            parent[key] = copy.deepcopy(rng.choice(NASTY))
        elif action < 0.75:
            del parent[key]
        elif action < 0.85 and isinstance(parent, dict):
            parent[str(rng.choice(NASTY))[:50]] = copy.deepcopy(rng.choice(NASTY))
        elif action < 0.95:
            other, other_key = rng.choice(places)
            value = copy.deepcopy(other[other_key]) if _has(other, other_key) else None
            if _has(parent, key):
                parent[key] = value
        elif isinstance(parent, list):
            parent *= rng.randrange(2, 50)
    return content


def _has(parent: Any, key: Any) -> bool:
    return key in parent if isinstance(parent, dict) else key < len(parent)


def _places(content: Any) -> list[tuple[Any, Any]]:
    """All places of values, as container and key."""
    result: list[tuple[Any, Any]] = []
    waiting = [content]
    while waiting and len(result) < 5000:
        part = waiting.pop()
        if isinstance(part, (dict, list)):
            keys = list(part) if isinstance(part, dict) else range(len(part))
            result += [(part, key) for key in keys]
            waiting += [part[key] for key in keys]
    return result
