"""Names that a person types for what is written: plain ones, that every operating system allows."""

from __future__ import annotations

RESERVED_CHARACTERS = frozenset('<>:"/\\|?*')
RESERVED_NAMES = frozenset(
    ["CON", "PRN", "AUX", "NUL"] + [f"{port}{i}" for port in ("COM", "LPT") for i in range(1, 10)]
)
LONGEST_NAME = 200  # bytes; file systems allow 255, and saving adds a few


def check_name(name: str, field: str = "name") -> None:
    """Refuse anything but one plain name that every operating system allows.

    Raises:
        ValueError: naming the field.
    """
    wrong = what_is_wrong(name)
    if wrong is not None:
        raise ValueError(f"{field} {wrong}: type a plain name such as 'my-model-without-ink'")


def what_is_wrong(name: str) -> str | None:
    """With a name, as the rest of a sentence about it; None where it is plain."""
    if not name.strip():
        return f"must not be empty, got {name!r}"
    if name.strip() in (".", ".."):
        return f"must not be {name!r}, which is a folder of its own"
    bad = [c for c in name if c in RESERVED_CHARACTERS or not c.isprintable()]
    if bad:
        return f"must not contain {bad[0]!r}, got {name!r}"
    if name != name.strip() or name[0] in ".~" or name[-1] == ".":
        return f"must not begin with a dot, ~ or space nor end with a dot or space, got {name!r}"
    if name.split(".")[0].strip().upper() in RESERVED_NAMES:
        return f"must not be {name!r}, which Windows keeps for itself"
    if len(name.encode()) > LONGEST_NAME:
        return f"must be shorter, got {len(name)} characters"
    return None
