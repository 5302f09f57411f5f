"""Progress bars and lines on a terminal, and where the command line keeps its pictures."""

from __future__ import annotations

import sys
from pathlib import Path

from tqdm import tqdm

from ..unlearning.results import StepReport

CACHE = Path.home() / ".cache" / "unlearn"


class Bars:
    """One progress bar a phase, on stderr, so that stdout stays free for ``--json``."""

    def __init__(self) -> None:
        self.bar: tqdm | None = None
        self.phase = ""

    def __call__(self, phase: str, done: int, total: int, report: StepReport | None) -> None:
        if phase != self.phase or self.bar is None:
            self.close()
            self.phase, self.bar = phase, tqdm(total=total, desc=f"{phase:<14}", file=sys.stderr)
        if report is not None:
            self.bar.set_postfix(
                forget=f"{report.forget_loss:.2g}",
                retain=f"{report.retain_loss:.2g}",
                cosine=f"{report.cosine:+.2f}",
                refresh=False,
            )
        self.bar.update(done - self.bar.n)

    def close(self) -> None:
        if self.bar is not None:
            self.bar.close()
            self.bar = None


def say(text: str) -> None:
    sys.stdout.write(f"{text}\n")
