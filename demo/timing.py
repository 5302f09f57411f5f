"""How long each part of the build takes."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager

from unlearn_core.job.console import say


@contextmanager
def timed(part: str) -> Iterator[None]:
    """Print the wall-clock time of a part of the build when it ends."""
    start = time.monotonic()
    yield
    say(f"{part}: {(time.monotonic() - start) / 60:.1f} min")
