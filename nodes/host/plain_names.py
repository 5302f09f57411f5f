"""Check of file names from the user: every operating system must allow them."""

from __future__ import annotations

RESERVED_CHARACTERS = frozenset('<>:"/\\|?*')
RESERVED_NAMES = frozenset(
    ["CON", "PRN", "AUX", "NUL"] + [f"{port}{i}" for port in ("COM", "LPT") for i in range(1, 10)]
)
LONGEST_NAME = 200  # bytes; file systems allow 255, and saving adds a few


def check_name(name: str, field: str = "name") -> None:
    """Refuse a name that some operating system forbids.

    Raises:
        ValueError: the message names the field.
    """
    problem = name_problem(name)
    if problem is not None:
        raise ValueError(f"{field} {problem}; type a plain name such as 'my-model-without-ink'")


def name_problem(name: str) -> str | None:
    """The problem with a name, as a predicate ("must not be empty, got ''"); None if it has
    none."""
    if not name.strip():
        return f"must not be empty, got {name!r}"
    if name.strip() in (".", ".."):
        return f"must not be {name!r}, which refers to a folder"
    bad = [c for c in name if c in RESERVED_CHARACTERS or not c.isprintable()]
    if bad:
        return f"must not contain {bad[0]!r}, got {name!r}"
    if name != name.strip() or name[0] in ".~" or name[-1] == ".":
        return f"must not begin with a dot, ~ or space nor end with a dot or space, got {name!r}"
    if name.split(".")[0].strip().upper() in RESERVED_NAMES:
        return f"must not be {name!r}, which Windows reserves"
    if len(name.encode()) > LONGEST_NAME:
        return f"must be at most {LONGEST_NAME} bytes long, got {len(name.encode())}"
    return None
