"""What a power failure during a save leaves: ``python -m benchmarks.faults_power``.

Each kind of save is performed once, on a model of a file system (``power_failure.py``), and cut
off after each of its file operations. What may then be on the disk is opened as the next start of
the program would do. The counts are in ``benchmarks/results/faults/power.json``.
"""

from __future__ import annotations

import shutil
import tempfile
from pathlib import Path
from typing import Any

import torch

from benchmarks.faults_chain import RESULTS
from benchmarks.faults_table import POWER, power_table
from benchmarks.power_failure import after_power_failures, record
from benchmarks.power_save import NEW, OLD, Save
from benchmarks.power_savers import REAL_SAVES
from benchmarks.quality import write_record
from unlearn_core.dataset.cache import LatentCache
from unlearn_core.foundation.atomic import appearing
from unlearn_core.foundation.leftovers import clean_leftovers
from unlearn_core.job.console import say
from unlearn_core.saving.resume import read_state, write_state
from unlearn_core.unlearning.snapshot import Snapshot

FILES = ("model_index.json", "unet/weights", "vae/weights", "tokenizer/vocabulary")
USERS_FILE, USERS_CONTENT = "unet/mine.txt", b"mine"


class File(Save):
    name = "file over an older one"

    def save(self, folder: Path, version: int) -> None:
        with appearing(folder / "m") as part:
            part.write_bytes(bytes([version]))

    def version(self, folder: Path) -> int | None:
        clean_leftovers(folder / "m")
        return _version((folder / "m").read_bytes()) if (folder / "m").exists() else None


class NewFile(File):
    name, over_older = "new file", False


class Folder(Save):
    name = "folder over an older one, with a file of the user"
    is_quick = False

    def save(self, folder: Path, version: int) -> None:
        with appearing(folder / "m") as part:
            for name in FILES:
                (part / name).parent.mkdir(parents=True, exist_ok=True)
                (part / name).write_bytes(bytes([version]))
        if version == OLD:
            (folder / "m" / USERS_FILE).write_bytes(USERS_CONTENT)

    def version(self, folder: Path) -> int | None:
        clean_leftovers(folder / "m")
        if not (folder / "m").exists():
            return None
        if self.over_older and (folder / "m" / USERS_FILE).read_bytes() != USERS_CONTENT:
            raise ValueError("the user's file")
        (version,) = {_version((folder / "m" / name).read_bytes()) for name in FILES}
        return version


class NewFolder(Folder):
    name, over_older = "new folder", False


class RunState(Save):
    name = "state of a run over an older one"

    def save(self, folder: Path, version: int) -> None:
        values = {"reports": [{}] * version}
        write_state(
            folder / "m", Snapshot({"weights": torch.full((64,), float(version))}, values), {}
        )

    def version(self, folder: Path) -> int | None:
        clean_leftovers(folder / "m")
        snapshot = read_state(folder / "m", {})
        if (snapshot.tensors["weights"] != snapshot.step).any():
            raise ValueError("a mixture")
        return snapshot.step


class CachedPicture(Save):
    """It is not flushed, because it can be drawn again: a damaged one must be noticed."""

    name, over_older = "picture in the cache", False

    def save(self, folder: Path, version: int) -> None:
        LatentCache(folder).put("0" * 64, torch.full((4, 4, 4), float(version)))

    def version(self, folder: Path) -> int | None:
        latent = LatentCache(folder).get("0" * 64)
        if latent is None:
            return None
        if (latent != NEW).any():
            raise ValueError("a damaged picture")
        return NEW

    def outcomes(self, saved: bool) -> set[int | None]:
        return {None, NEW}


SAVES = (*REAL_SAVES, NewFile(), File(), NewFolder(), Folder(), RunState(), CachedPicture())


def _version(content: bytes) -> int:
    if content not in (bytes([OLD]), bytes([NEW])):
        raise ValueError(f"{content!r}")
    return content[0]


def cut(save: Save) -> dict[str, Any]:
    """Save once, and examine the disk after a power failure at each moment."""
    with tempfile.TemporaryDirectory() as room:
        root, images = Path(room, "root"), Path(room, "images")
        root.mkdir()
        images.mkdir()
        if save.over_older:
            save.save(root, OLD)
        moments = record(root, lambda: save.save(root, NEW))
        disks, broken, lost = 0, 0, 0
        for image, saved in after_power_failures(root, moments, images):
            disks += 1
            try:
                lost += save.version(image) not in save.outcomes(saved)
            except (OSError, ValueError):
                broken += 1
            shutil.rmtree(image)
    return {
        "save": save.name,
        "moments": len(moments),
        "disks": disks,
        "broken": broken,
        "lost": lost,
    }


def main() -> None:
    rows = [cut(save) for save in SAVES]
    RESULTS.mkdir(parents=True, exist_ok=True)
    write_record({"saves": rows}, POWER)
    say(power_table())


if __name__ == "__main__":
    main()
