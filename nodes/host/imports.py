"""Import the model libraries without delaying Cancel."""

from __future__ import annotations

from contextlib import suppress
from functools import cache
from threading import Thread

from ...unlearn_core.foundation.progress import Progress
from ...unlearn_core.models.load import import_libraries

POLL = 0.1  # seconds


def await_libraries(progress: Progress) -> None:
    """Import diffusers and transformers. The first time takes seconds, and nothing can interrupt
    an import: it continues in its thread after Cancel, and a later call waits for its end."""
    thread = _importing()
    while thread.is_alive():
        thread.join(POLL)
        progress.check()


@cache
def _importing() -> Thread:
    thread = Thread(target=_import, name="unlearn-imports", daemon=True)
    thread.start()
    return thread


def _import() -> None:
    with suppress(ImportError, RuntimeError):  # opening the model raises it again
        import_libraries()
