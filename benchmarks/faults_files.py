"""What an interrupted run has left on the disk, for ``benchmarks.faults``."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from PIL import Image
from safetensors import SafetensorError
from safetensors.torch import load_file

from unlearn_core.foundation.finite import non_finite
from unlearn_core.foundation.leftovers import clean_leftovers
from unlearn_core.saving.resume import stored_steps

Hashes = Mapping[str, str]  # of the tensors of each result


@dataclass(frozen=True)
class Place:
    """Where a job writes. All paths are relative to ``root``.

    Attributes:
        folders: the folders to examine.
        results: files with the unlearned weights.
        model: the saved model.
        states: the file of the run's state, or the folder of such files.
    """

    root: Path
    folders: tuple[str, ...]
    results: tuple[str, ...]
    model: str
    states: str

    def weights(self) -> dict[str, str]:
        """The hashes of the results that exist."""
        files = {name: self.root / name for name in self.results}
        return {name: _weights(file) for name, file in files.items() if file.exists()}

    def stored(self) -> int | None:
        """The number of steps in the stored state; None if there is none."""
        place = self.root / self.states
        files = place.glob("*.safetensors") if place.is_dir() else [place]
        counts = [len(steps) for steps in map(stored_steps, files) if steps is not None]
        return max(counts, default=None)

    def examine(self, before: Hashes, stored_before: int, known: list[Hashes]) -> dict[str, Any]:
        """What a stop has left: broken files, lost results, hidden files, and the stored step.

        Args:
            before: the results that existed before the run.
            stored_before: the steps that were stored before it.
            known: the hashes that the results may have; first those of the complete run.
        """
        left_over = self.left_over()
        clean_leftovers(self.root / self.model)  # as at the next start
        broken = [*self._broken_files()]
        lost: list[str] = []
        stored = self.stored()
        if not broken:
            left = self.weights()
            lost += before.keys() - left.keys()
            lost += [n for n, value in left.items() if value not in [each[n] for each in known]]
            if stored_before and stored is None and left != known[0]:
                lost.append(self.states)
        return {
            "stored_before": stored_before,
            "stored": stored,
            "broken": broken,
            "lost": lost,
            "left_over": left_over,
        }

    def left_over(self) -> list[str]:
        """Hidden files that an interrupted write has left behind. Empty ones are only locks."""
        return [
            str(file.relative_to(self.root))
            for file in self._files()
            if self._is_hidden(file) and file.stat().st_size
        ]

    def _broken_files(self) -> Iterator[str]:
        """The visible files that cannot be opened, or that contain NaN."""
        for file in self._files():
            if self._is_hidden(file):
                continue
            try:
                fault = _fault(file)
            except (OSError, ValueError, SyntaxError, SafetensorError) as error:
                fault = str(error) or type(error).__name__
            if fault:
                yield f"{file.relative_to(self.root)}: {fault}"

    def _files(self) -> Iterable[Path]:
        found = [file for folder in self.folders for file in (self.root / folder).rglob("*")]
        return [file for file in sorted(found) if file.is_file()]

    def _is_hidden(self, file: Path) -> bool:
        return any(part.startswith(".") for part in file.relative_to(self.root).parts)


def _weights(file: Path) -> str:
    digest = hashlib.sha256()
    for name, tensor in sorted(load_file(file).items()):
        digest.update(f"{name} {tensor.dtype} {list(tensor.shape)}".encode())
        digest.update(tensor.contiguous().view(-1).numpy().tobytes())
    return digest.hexdigest()


def _fault(file: Path) -> str:
    if file.suffix == ".safetensors":
        return non_finite(load_file(file).items())
    if file.suffix == ".json":
        json.loads(file.read_text(encoding="utf-8"))
    elif file.suffix == ".png":
        with Image.open(file) as image:
            image.load()
    elif file.suffix == ".html" and not file.read_text("utf-8").rstrip().endswith("</html>"):
        return "it ends early"
    return "" if file.stat().st_size else "it is empty"
