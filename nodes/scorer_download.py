"""The paper's CLIP, fetched once the person has agreed on the page. No node does this, so that no
workflow file can."""

from __future__ import annotations

import asyncio
import logging
import shutil
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from aiohttp import web
from safetensors import safe_open
from server import PromptServer

from ..unlearn_core.evaluation.alignment import (
    SCORER_CONFIG,
    SCORER_WEIGHTS,
    check_scorer,
    is_scorer,
)
from .choices import PAPER_SCORER, scorers_folder

REPOSITORY = f"laion/{PAPER_SCORER}"
FILES = (SCORER_CONFIG, SCORER_WEIGHTS)
BYTES = 605_000_000  # about; the hub says exactly
EVENT = "unlearn.download"
SECONDS = 0.5  # between two events


@dataclass
class Download:
    """The one download that may be running.

    Attributes:
        total: bytes, once the hub has said.
        room: where the files arrive.
        task: kept, for the event loop alone does not hold on to it.
    """

    total: int = BYTES
    room: Path | None = None
    task: asyncio.Task[None] | None = None

    @property
    def running(self) -> bool:
        return self.task is not None and not self.task.done()

    def state(self) -> dict[str, Any]:
        present = is_scorer(scorers_folder() / PAPER_SCORER)
        return {"present": present, "running": self.running}

    async def run(self) -> None:
        """Fetch the files, and tell the page how far they are."""
        worker = asyncio.create_task(asyncio.to_thread(self._fetch))
        while not worker.done():
            await asyncio.wait({worker}, timeout=SECONDS)
            if not worker.done():
                # All bytes are told of only when the folder is where it belongs.
                self._tell(min(self._arrived(), self.total - 1), None)
        error = worker.exception()
        if error is not None:
            logging.warning("Unlearn could not fetch %s: %s", REPOSITORY, error)
        self._tell(0 if error else self.total, error)

    def _fetch(self) -> None:
        """Each file appears whole, and the folder counts as a CLIP's only with the last of them."""
        from huggingface_hub import get_hf_file_metadata, hf_hub_download, hf_hub_url

        # Public files: nobody needs to know who asks for them.
        sizes = [
            get_hf_file_metadata(hf_hub_url(REPOSITORY, file), token=False).size for file in FILES
        ]
        self.total = sum(size or 0 for size in sizes)
        folder = scorers_folder()
        folder.mkdir(parents=True, exist_ok=True)
        # A sibling of the folder to be: the move at the end must not cross file systems.
        with tempfile.TemporaryDirectory(prefix=f".{PAPER_SCORER}-", dir=folder) as room:
            self.room = Path(room)
            part = self.room / PAPER_SCORER
            for file in FILES:
                hf_hub_download(REPOSITORY, file, local_dir=part, token=False)
            shutil.rmtree(part / ".cache", ignore_errors=True)  # the hub's own notes
            check_scorer(part)
            with safe_open(part / SCORER_WEIGHTS, "pt"):  # refuses what is cut short
                pass
            place = folder / PAPER_SCORER
            place.mkdir(exist_ok=True)  # somebody may have put other files of it there
            for file in reversed(FILES):  # complete only with the first of them
                (part / file).replace(place / file)

    def _arrived(self) -> int:
        """Bytes on the disk; 0 in the moment in which the hub moves a file to its place."""
        if self.room is None:
            return 0
        try:
            return sum(file.stat().st_size for file in self.room.rglob("*") if file.is_file())
        except FileNotFoundError:
            return 0

    def _tell(self, done: int, error: BaseException | None) -> None:
        said = None if error is None else f"{REPOSITORY} could not be fetched: {error}"
        data = {"done": done, "total": self.total, "error": said}
        PromptServer.instance.send_sync(EVENT, data)


def add_scorer_routes(routes: web.RouteTableDef) -> None:
    """``/unlearn/scorer``: whether the CLIP is there, and the one way to have it fetched."""
    download = Download()

    @routes.get("/unlearn/scorer")
    async def state(_: web.Request) -> web.Response:
        return web.json_response(download.state())

    @routes.post("/unlearn/scorer")
    async def fetch(_: web.Request) -> web.Response:
        if download.running:
            return web.json_response({"error": "it is being fetched already"}, status=409)
        if not download.state()["present"]:
            download.task = asyncio.create_task(download.run())
        return web.json_response(download.state())
