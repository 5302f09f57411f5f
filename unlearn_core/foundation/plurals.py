"""Numbers of things, in messages."""

from __future__ import annotations


def count_of(count: int, noun: str) -> str:
    """``1 picture``, ``2 pictures``; ``noun`` is in the singular."""
    return f"{count} {noun}" if count == 1 else f"{count} {noun}s"
