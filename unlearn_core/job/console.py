"""Terminal output of the command line, and its folder of cached pictures."""

from __future__ import annotations

import io
import sys
from pathlib import Path

from tqdm import tqdm

from ..foundation.progress import Progress

CACHE = Path.home() / ".cache" / "unlearn"
LABEL_WIDTH = 16  # characters


class Bars(Progress):
    """One progress bar per phase, on stderr, because stdout is for ``--json``.

    Args:
        hidden: show nothing; for a process beside the main one.
    """

    def __init__(self, *, hidden: bool = False) -> None:
        super().__init__()
        self.hidden = hidden
        self.bar: tqdm | None = None
        self.bar_phase = (0.0, "")

    def show(self) -> None:
        if self.hidden:
            return
        phase = self.start_time, self.name
        if self.bar is None or phase != self.bar_phase:
            self.close()
            self.bar_phase = phase
            self.bar = tqdm(total=self.total, desc=f"{self.name:<{LABEL_WIDTH}}", file=sys.stderr)
        if self.note:
            self.bar.set_postfix_str(self.note, refresh=False)
        self.bar.update(self.done - self.bar.n)

    def announce(self, sentence: str) -> None:
        if not self.hidden:
            tqdm.write(sentence, file=sys.stderr)

    def close(self) -> None:
        if self.bar is not None:
            self.bar.close()
            self.bar = None


def say(text: str) -> None:
    """Write a line to stdout."""
    escape_unknown_characters()
    sys.stdout.write(f"{text}\n")


def escape_unknown_characters() -> None:
    """Have stdout escape the characters that its encoding does not have, as stderr does anyway: a
    name must not end a run in an error after the work is done."""
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(errors="backslashreplace")
