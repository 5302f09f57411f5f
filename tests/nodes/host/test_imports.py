"""Cancel while the model libraries are imported."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator

import comfy.model_management
import pytest
from comfy.model_management import InterruptProcessingException

from ..pack import node_result, pack_module, run_node

SECONDS = 2.0  # within which Cancel must end a run


@pytest.fixture
def end_of_import(monkeypatch: pytest.MonkeyPatch) -> Iterator[threading.Event]:
    """The libraries count as not imported yet; their import ends with this event."""
    module, end = pack_module("nodes.host.imports"), threading.Event()
    module._importing.cache_clear()
    monkeypatch.setattr(module, "import_libraries", lambda: end.wait(30))
    yield end
    end.set()
    module._importing().join()
    module._importing.cache_clear()


def test_cancel_does_not_wait_for_an_import(end_of_import: threading.Event) -> None:
    cancel = threading.Timer(0.2, comfy.model_management.interrupt_current_processing)
    cancel.start()
    started = time.monotonic()
    with pytest.raises(InterruptProcessingException):
        run_node("UnlearnLoadModel", model="tiny-class")
    assert time.monotonic() - started < SECONDS
    threading.Timer(0.2, end_of_import.set).start()
    assert node_result("UnlearnLoadModel", model="tiny-class"), "the next run waits for its end"
