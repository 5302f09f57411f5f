"""Download of the paper's CLIP. Only a button on the page starts it; no node, and hence no workflow
file, can."""

from __future__ import annotations

import asyncio
import hashlib
import logging
import shutil
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from aiohttp import web
from server import PromptServer

from ...unlearn_core.foundation.disk_errors import DISK_ERRORS, cure
from ...unlearn_core.judging.clip_scorer import SCORER_CONFIG, SCORER_WEIGHTS, is_scorer
from ..host.folders import PAPER_SCORER, scorers_folder
from .hub import CHUNK, FAILURES, Hub, HubFile, in_thread, refuse_offline
from .post_route import Content, add_post

REPOSITORY = f"laion/{PAPER_SCORER}"
REVISION = "1a25a446712ba5ee05982a381eed697ef9b435cf"
CONFIG_HASH = "4302a891b495ad0966d1e7eeff102b5f34a3f1e647e57a9198933f862d5f8ba7"
WEIGHTS_HASH = "ac4f8c4b88af6d963118cbf40ad93176d092abbedfcb752601ae1866352656e6"
FILES = (
    HubFile(REPOSITORY, REVISION, SCORER_CONFIG, 604, CONFIG_HASH),
    HubFile(REPOSITORY, REVISION, SCORER_WEIGHTS, 605_143_316, WEIGHTS_HASH),
)
EVENT = "unlearn.download"
SECONDS = 0.5  # between two events
ABSENT, DOWNLOADING, CHECKING, PRESENT = "absent", "downloading", "checking", "present"


@dataclass
class Download:
    """The one download that may be running.

    Attributes:
        files: of the CLIP; moved to ``place`` in reverse order, so that the first arrives last.
        task: stored here because the event loop has only a weak reference.
        checking: whether all bytes have arrived and their hashes are being checked.
        error: reason why the last attempt failed.
    """

    files: tuple[HubFile, ...] = FILES
    task: asyncio.Task[None] | None = None
    checking: bool = False
    error: str | None = None

    @property
    def place(self) -> Path:
        return scorers_folder() / PAPER_SCORER

    @property
    def partial_folder(self) -> Path:
        """Folder of incomplete files, which can be resumed: hidden from lists of models, and on the
        same file system as ``place``."""
        return scorers_folder() / f".{PAPER_SCORER}.part"

    @property
    def running(self) -> bool:
        return self.task is not None and not self.task.done()

    def state(self) -> dict[str, Any]:
        """The state as the page shows it; sizes in bytes. ``at`` orders the states that the page
        receives over two connections.

        Raises:
            ValueError: see ``Hub.of_environment``.
        """
        total = sum(file.size for file in self.files)
        if is_scorer(self.place):
            state = PRESENT
        elif self.running:
            state = CHECKING if self.checking else DOWNLOADING
        else:
            state = ABSENT
        return {
            "at": time.time(),
            "state": state,
            "done": total if state == PRESENT else min(self._arrived(), total),
            "total": total,
            "source": Hub.of_environment().host,
            "error": self.error,
        }

    def start(self) -> None:
        """Start or resume the download; no effect if it is running or the CLIP is installed.

        Raises:
            ValueError: see ``Hub.of_environment``.
        """
        if not self.running and not is_scorer(self.place):
            self.error = None
            self.task = asyncio.create_task(self._run(Hub.of_environment()))

    async def cancel(self) -> None:
        """Stop, and keep the bytes that have arrived."""
        task = self.task
        if task is not None:
            task.cancel()
            await asyncio.wait({task})

    async def _run(self, hub: Hub) -> None:
        ticker = asyncio.create_task(self._tick())
        try:
            await self._fetch(hub)
        except asyncio.CancelledError:
            logging.info("Unlearn: download of %s cancelled", REPOSITORY)
        except FAILURES as error:
            reason = str(error) or type(error).__name__
            if isinstance(error, OSError) and error.errno in DISK_ERRORS:
                reason += f"; {cure(error, self.partial_folder)}"
            self.error = f"{REPOSITORY} could not be downloaded: {reason}"
            logging.warning("Unlearn: %s", self.error)
        finally:
            ticker.cancel()
            self.checking, self.task = False, None
            self._send_state()

    async def _tick(self) -> None:
        while True:
            self._send_state()
            await asyncio.sleep(SECONDS)

    async def _fetch(self, hub: Hub) -> None:
        refuse_offline()
        logging.info("Unlearn: downloading %s, %s, from %s", REPOSITORY, REVISION, hub.host)
        self.partial_folder.mkdir(parents=True, exist_ok=True)
        self._check_space()
        for file in self.files:
            await hub.fetch(file, self.partial_folder / file.name)
        self.checking = True
        self._send_state()
        for file in self.files:
            await _verify(file, self.partial_folder / file.name)
        self.place.mkdir(exist_ok=True)  # it may exist with other files of the user
        for file in reversed(self.files):  # the folder counts as a CLIP when all files are there
            (self.partial_folder / file.name).replace(self.place / file.name)
        shutil.rmtree(self.partial_folder, ignore_errors=True)

    def _check_space(self) -> None:
        """Refuse a download that does not fit on the disk.

        Raises:
            OSError: the free space is too small for the rest.
        """
        rest = sum(file.size for file in self.files) - self._arrived()
        free = shutil.disk_usage(self.partial_folder).free
        if rest > free:
            raise OSError(
                f"{rest / 1e6:.0f} MB are still needed, but only {free / 1e6:.0f} MB are free on "
                "the disk of models/open_clip; free some space and try again"
            )

    def _arrived(self) -> int:
        return sum(_size(self.partial_folder / file.name) for file in self.files)

    def _send_state(self) -> None:
        PromptServer.instance.send_sync(EVENT, self.state())


def _size(file: Path) -> int:
    try:
        return file.stat().st_size
    except FileNotFoundError:
        return 0


async def _verify(file: HubFile, part: Path) -> None:
    """Compare the file's hash with the published one; the work runs in a thread.

    Raises:
        ValueError: the hashes differ; ``part`` is deleted.
    """
    digest = hashlib.sha256()
    with part.open("rb") as content:
        while data := await in_thread(content.read, 8 * CHUNK):
            await in_thread(digest.update, data)
    if digest.hexdigest() != file.sha256:
        part.unlink()
        raise ValueError(
            f"{file.name} arrived with SHA-256 {digest.hexdigest()[:12]}… instead of "
            f"{file.sha256[:12]}… and was deleted; try again"
        )


def add_scorer_routes(routes: web.RouteTableDef, download: Download | None = None) -> None:
    """``/unlearn/scorer``: the state of the CLIP (GET) and its download (POST);
    ``/unlearn/scorer/cancel`` stops it. All answer with the state."""
    current = download or Download()

    @routes.get("/unlearn/scorer")
    async def state(_: web.Request) -> web.Response:
        try:
            return web.json_response(current.state())
        except ValueError as error:
            return web.json_response({"error": str(error)}, status=500)

    async def start(_: Content) -> dict[str, Any]:
        current.start()
        return current.state()

    async def cancel(_: Content) -> dict[str, Any]:
        await current.cancel()
        return current.state()

    add_post(routes, "/unlearn/scorer", start)
    add_post(routes, "/unlearn/scorer/cancel", cancel)
