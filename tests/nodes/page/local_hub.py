"""A Hugging Face hub on this machine: it redirects to a file server, which can break in the ways
that a real one does."""

from __future__ import annotations

import asyncio
import re
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field

from aiohttp import web
from aiohttp.test_utils import TestServer


@dataclass
class LocalHub:
    """What it serves, how it misbehaves, and what it was asked for.

    Attributes:
        files: contents by name.
        asked: path and Range header of every request.
        ranges: whether it honours Range.
        cut: sends no more bytes of a body than these, then breaks the connection off.
        stall: in place of that it stays silent.
        length: whether it tells the length of a body.
        redirect: the address it redirects to, in place of its own file server.
        stalled: set once it is silent.
    """

    files: dict[str, bytes]
    asked: list[tuple[str, str | None]] = field(default_factory=list)
    status: int = 200
    ranges: bool = True
    cut: int | None = None
    stall: bool = False
    length: bool = True
    redirect: str | None = None
    stalled: asyncio.Event = field(default_factory=asyncio.Event)

    @property
    def paths(self) -> list[str]:
        return [path for path, _ in self.asked]

    @property
    def ranges_asked(self) -> list[str | None]:
        """Of the file server."""
        return [asked for path, asked in self.asked if path.startswith("/store/")]

    def _note(self, request: web.Request) -> None:
        assert not {"Authorization", "Cookie"} & request.headers.keys()
        self.asked.append((request.path, request.headers.get("Range")))

    async def resolve(self, request: web.Request) -> web.Response:
        self._note(request)
        if self.status != 200:
            return web.Response(status=self.status)
        # A signature that another quoting would break.
        there = self.redirect or f"/store/{request.match_info['name']}?signature=a%2Fb%3D+c"
        headers = {"Location": there, "Set-Cookie": "who=you"}
        return web.Response(status=302, headers=headers)

    async def store(self, request: web.Request) -> web.StreamResponse:
        self._note(request)
        assert request.raw_path.endswith("?signature=a%2Fb%3D+c")
        content, status, headers = self.files[request.match_info["name"]], 200, {}
        asked = re.fullmatch(r"bytes=(\d+)-", request.headers.get("Range", ""))
        if asked and self.ranges:
            start, whole = int(asked[1]), len(content)
            if start >= whole:
                return web.Response(status=416)
            headers["Content-Range"] = f"bytes {start}-{whole - 1}/{whole}"
            content, status = content[start:], 206
        response = web.StreamResponse(status=status, headers=headers)
        if self.length:
            response.content_length = len(content)
        await response.prepare(request)
        sent = content if self.cut is None else content[: self.cut]
        await response.write(sent)
        if len(sent) < len(content):
            if self.stall:
                self.stalled.set()
                await asyncio.sleep(60)
            await asyncio.sleep(0.2)  # a client drops what it has not read when the line breaks
            assert request.transport is not None
            request.transport.close()
        return response


@asynccontextmanager
async def serving(hub: LocalHub) -> AsyncIterator[str]:
    """The hub's address."""
    app = web.Application()
    app.router.add_get("/{owner}/{repository}/resolve/{revision}/{name}", hub.resolve)
    app.router.add_get("/store/{name}", hub.store)
    async with TestServer(app) as server:
        yield str(server.make_url("")).rstrip("/")
