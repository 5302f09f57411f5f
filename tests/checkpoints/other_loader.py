"""ComfyUI's code in processes of its own: its modules and ours would hide each other."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from safetensors.torch import load_file
from torch import Tensor

ROOT = Path(__file__).resolve().parents[2]
SIDE = Path(__file__).with_name("comfy_side.py")


@dataclass(frozen=True)
class ComfySide:
    """The scripts of ``comfy_side.py``, run in ComfyUI's ``folder``."""

    folder: Path

    def run(self, *arguments: str) -> None:
        command = [sys.executable, str(SIDE), *arguments]
        done = subprocess.run(command, cwd=self.folder, capture_output=True, text=True)
        assert done.returncode == 0, done.stderr[-4000:]

    def predict(self, room: Path, *jobs: dict[str, Any]) -> list[dict[str, Tensor]]:
        """What the stock loaders' models say, see ``comfy_side.predict``."""
        outs = [room / f"said-{i}.safetensors" for i in range(len(jobs))]
        asked = [{**job, "out": str(out)} for job, out in zip(jobs, outs, strict=True)]
        file = room / "jobs.json"
        file.write_text(json.dumps(asked, default=str), encoding="utf-8")
        self.run("predict", str(file))
        return [load_file(out) for out in outs]


def find_comfyui() -> ComfySide:
    """The ComfyUI that ``run.py`` provisioned, or that ``COMFYUI_PATH`` names.

    Raises:
        FileNotFoundError: there is none.
    """
    folder = Path(os.environ.get("COMFYUI_PATH") or ROOT / ".comfyui" / "ComfyUI")
    if not (folder / "main.py").is_file():
        raise FileNotFoundError(
            f"no ComfyUI in {folder}: run `python run.py test`, or set COMFYUI_PATH"
        )
    return ComfySide(folder.resolve())
