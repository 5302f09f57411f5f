"""The terminal output."""

from __future__ import annotations

import pytest

from unlearn_core.foundation.progress import UNLEARNING
from unlearn_core.job.console import Bars


def test_a_sentence_is_a_line_on_stderr(capsys: pytest.CaptureFixture[str]) -> None:
    bars = Bars()
    with bars.phase(UNLEARNING, 3):
        bars.tick(2)
        bars.announce("the run went back")
        bars.tick(-1)  # steps were undone
        assert bars.bar is not None
        assert bars.bar.n == 1
    bars.close()
    output = capsys.readouterr()
    assert "the run went back\n" in output.err
    assert output.out == ""
