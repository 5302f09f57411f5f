"""The CPU time of another process, which is independent of other load on the machine (Linux)."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

TICKS = os.sysconf("SC_CLK_TCK")  # per second


def cpu_seconds(process: subprocess.Popen[bytes]) -> float:
    """The CPU seconds of a process so far. Those of an ended one are gone once it has been polled
    or waited for."""
    fields = Path(f"/proc/{process.pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / TICKS


def has_ended(process: subprocess.Popen[bytes]) -> bool:
    """Whether a process has ended, without waiting for it, so that its CPU time can still be
    read."""
    return os.waitid(os.P_PID, process.pid, os.WEXITED | os.WNOHANG | os.WNOWAIT) is not None
