"""Signals that end a process: Ctrl+C, SIGTERM, and SIGHUP, which a closed terminal sends."""

from __future__ import annotations

import gc
import os
import signal
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType
from typing import NoReturn

HANG_UP = (signal.SIGHUP,) if hasattr(signal, "SIGHUP") else ()  # Windows has none
REQUESTS = (signal.SIGTERM, *HANG_UP)


class StopSignal(KeyboardInterrupt):
    """A signal that is handled like Ctrl+C.

    Attributes:
        number: of the signal.
    """

    def __init__(self, number: int) -> None:
        super().__init__(number)
        self.number = number


@contextmanager
def ending_at_once() -> Iterator[None]:
    """Context for the imports of a command, which take seconds: Ctrl+C ends the process with one
    line. An exception in an import would leave it by whatever the libraries catch."""
    handler = signal.getsignal(signal.SIGINT)
    if handler is signal.default_int_handler:  # Ctrl+C is not ignored
        signal.signal(signal.SIGINT, _end)
    yield
    signal.signal(signal.SIGINT, handler)


def exit_with(main: Callable[[], int]) -> NoReturn:
    """Run a command; its result is the exit status of the process."""
    try:
        status = main()
        gc.freeze()  # Python's last garbage collection takes two seconds, in which Ctrl+C waits
    except KeyboardInterrupt:  # before or after the work, when nothing can be lost
        _end(signal.SIGINT, None)
    sys.exit(status)


def _end(number: int, frame: FrameType | None) -> NoReturn:
    sys.stderr.write("stopped\n")
    sys.stderr.flush()
    os._exit(128 + number)


@contextmanager
def like_ctrl_c() -> Iterator[None]:
    """Context in which SIGTERM and SIGHUP raise ``StopSignal``. A signal that is already ignored or
    handled (``nohup``) stays so. Without effect outside the main thread."""
    if not _is_main_thread():
        yield
        return
    numbers = [number for number in REQUESTS if signal.getsignal(number) is signal.SIG_DFL]
    for number in numbers:
        signal.signal(number, _stop)
    try:
        yield
    finally:
        for number in numbers:
            signal.signal(number, signal.SIG_DFL)


@contextmanager
def deferred() -> Iterator[None]:
    """Context that must not be left half done: signals with a handler wait for its end, and the
    first of them then takes effect. Without effect outside the main thread, which has no signals.
    """
    if not _is_main_thread():
        yield
        return
    waiting: list[tuple[int, FrameType | None]] = []
    handlers = {number: signal.getsignal(number) for number in (signal.SIGINT, *REQUESTS)}
    handlers = {number: handler for number, handler in handlers.items() if callable(handler)}
    for number in handlers:
        signal.signal(number, lambda *arguments: waiting.append(arguments))
    try:
        yield
    finally:
        for number, handler in handlers.items():
            signal.signal(number, handler)
        if waiting:
            number, frame = waiting[0]
            handlers[signal.Signals(number)](number, frame)


def _is_main_thread() -> bool:
    return threading.current_thread() is threading.main_thread()


def _stop(number: int, frame: FrameType | None) -> None:
    raise StopSignal(number)
