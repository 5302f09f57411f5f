"""ComfyUI's code in a separate process, because its modules and ours would hide each other."""

from __future__ import annotations

import hashlib
import json
import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from safetensors.torch import load_file
from torch import Tensor

ROOT = Path(__file__).resolve().parents[2]
SIDE = Path(__file__).with_name("comfy_side.py")


def content_hash(file: Path) -> str:
    """kohya's ``sshs_model_hash``: SHA-256 of all tensors' bytes, without the header."""
    with file.open("rb") as stream:
        stream.seek(int.from_bytes(stream.read(8), "little"), os.SEEK_CUR)
        return hashlib.sha256(stream.read()).hexdigest()


@dataclass(frozen=True)
class ComfySide:
    """The running process of ``comfy_side.py``, and the ``folder`` of its ComfyUI."""

    folder: Path
    process: subprocess.Popen[str]

    def make(self, family: str, file: Path) -> None:
        """Write a checkpoint of random weights, see ``comfy_side.make``."""
        self._command("make", family, str(file), 1)

    def predict(self, room: Path, *jobs: dict[str, Any]) -> list[dict[str, Tensor]]:
        """Predictions of the stock loaders' models, see ``comfy_side.predict``."""
        outs = [room / f"prediction-{i}.safetensors" for i in range(len(jobs))]
        for job, out in zip(jobs, outs, strict=True):
            self._command("predict", {**job, "out": out})
        return [load_file(out) for out in outs]

    def _command(self, *command: object) -> None:
        assert self.process.stdin is not None
        assert self.process.stdout is not None
        self.process.stdin.write(json.dumps(command, default=str) + "\n")
        self.process.stdin.flush()
        answer = self.process.stdout.readline()
        assert answer, f"ComfyUI's process ended, see stderr: status {self.process.wait()}"


@contextmanager
def running_comfy_side() -> Iterator[ComfySide]:
    """Run it in the ComfyUI of ``run.py``, or in that of ``COMFYUI_PATH``.

    Raises:
        FileNotFoundError: the folder contains no ComfyUI.
    """
    folder = Path(os.environ.get("COMFYUI_PATH") or ROOT / ".comfyui" / "ComfyUI")
    if not (folder / "main.py").is_file():
        raise FileNotFoundError(
            f"no ComfyUI in {folder}: run `python run.py test`, or set COMFYUI_PATH"
        )
    with subprocess.Popen(
        [sys.executable, str(SIDE)],
        cwd=folder,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    ) as process:
        yield ComfySide(folder.resolve(), process)
