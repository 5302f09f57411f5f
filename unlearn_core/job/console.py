"""Progress bars and lines on a terminal, and where the command line keeps its pictures."""

from __future__ import annotations

import sys
from pathlib import Path

from tqdm import tqdm

from ..foundation.progress import Progress

CACHE = Path.home() / ".cache" / "unlearn"
LABEL = 16  # characters


class Bars(Progress):
    """One progress bar for each phase, on stderr: stdout is for ``--json``."""

    def __init__(self) -> None:
        super().__init__()
        self.bar: tqdm | None = None
        self.shown = (0.0, "")

    def show(self) -> None:
        phase = self.began, self.name
        if self.bar is None or phase != self.shown:
            self.close()
            self.shown = phase
            self.bar = tqdm(total=self.total, desc=f"{self.name:<{LABEL}}", file=sys.stderr)
        if self.note:
            self.bar.set_postfix_str(self.note, refresh=False)
        self.bar.update(self.done - self.bar.n)

    def close(self) -> None:
        if self.bar is not None:
            self.bar.close()
            self.bar = None


def say(text: str) -> None:
    sys.stdout.write(f"{text}\n")
