"""Fetch the emoji sets from the npm registry and rasterise the 32 objects, one sheet per style.

Needed only to recreate ``demo/artwork/*.png``, which are in the repository:
``python -m demo.fetch_artwork`` (needs npm and the package resvg_py).
"""

from __future__ import annotations

import io
import json
import subprocess
import tarfile
import tempfile
from pathlib import Path
from typing import Any

from PIL import Image

from demo.artwork import SHEET_COLUMNS, SHEET_FOLDER, TILE
from demo.world import OBJECT_ICONS

PACKAGES: dict[str, str] = {
    "noto": "@iconify-json/noto@1.2.9",
    "twemoji": "@iconify-json/twemoji@1.2.5",
    "fluent": "@iconify-json/fluent-emoji@1.2.7",
    "ink": "@iconify-json/fluent-emoji-high-contrast@1.2.6",
}


def icon_svg(icons: dict[str, Any], name: str) -> str:
    while name not in icons["icons"]:
        name = icons["aliases"][name]["parent"]
    icon = icons["icons"][name]
    size = [icon.get(k, icons.get(k, d)) for k, d in (("width", 16), ("height", 16))]
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" xmlns:xlink="http://www.w3.org/1999/xlink" '
        f'viewBox="{icon.get("left", 0)} {icon.get("top", 0)} {size[0]} {size[1]}" '
        f'color="#151515">{icon["body"]}</svg>'
    )


def load_icons(package: str, folder: Path) -> dict[str, Any]:
    subprocess.run(["npm", "pack", "--silent", package], cwd=folder, check=True, text=True)
    (archive,) = folder.glob("*.tgz")
    with tarfile.open(archive) as tar:
        member = tar.extractfile("package/icons.json")
        assert member is not None
        return json.load(member)


def main() -> None:
    import resvg_py

    SHEET_FOLDER.mkdir(exist_ok=True)
    for style, package in PACKAGES.items():
        with tempfile.TemporaryDirectory() as folder:
            icons = load_icons(package, Path(folder))
        rows = -(-len(OBJECT_ICONS) // SHEET_COLUMNS)
        sheet = Image.new("RGBA", (SHEET_COLUMNS * TILE, rows * TILE))
        for i, icon in enumerate(OBJECT_ICONS.values()):
            png = resvg_py.svg_to_bytes(svg_string=icon_svg(icons, icon), width=TILE, height=TILE)
            tile = Image.open(io.BytesIO(bytes(png)))
            sheet.paste(tile, (i % SHEET_COLUMNS * TILE, i // SHEET_COLUMNS * TILE))
        sheet.save(SHEET_FOLDER / f"{style}.png", optimize=True)


if __name__ == "__main__":
    main()
