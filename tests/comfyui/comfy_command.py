"""The command `comfy` of comfy-cli."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

from live_server import PACK, private_environment


class ComfyCli:
    """comfy-cli with its own home folder and with tracking disabled."""

    def __init__(self, home: Path, workspace: Path) -> None:
        self.environment = private_environment(home)
        self.workspace = workspace
        self("tracking", "disable")

    def __call__(
        self, *args: str, cwd: Path = PACK, timeout: float = 300
    ) -> subprocess.CompletedProcess[str]:
        workspace = f"--workspace={self.workspace}"
        return subprocess.run(
            [sys.executable, "-m", "comfy_cli", "--skip-prompt", workspace, *args],
            cwd=cwd,
            env=self.environment,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            timeout=timeout,
        )
