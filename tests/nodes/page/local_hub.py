"""A local Hugging Face hub: it redirects to a file server that can fail like a real one."""

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
    """Its files, its faults, and the requests that it received.

    Attributes:
        files: contents by name.
        requests: path and Range header of every request.
        ranges: whether it honours Range.
        cut: number of bytes of a body after which it closes the connection.
        stall: whether it goes silent instead of closing the connection.
        length: whether it sends the length of a body.
        redirect: the address it redirects to, instead of its own file server.
        stalled: set once it is silent.
    """

    files: dict[str, bytes]
    requests: list[tuple[str, str | None]] = field(default_factory=list)
    status: int = 200
    ranges: bool = True
    cut: int | None = None
    stall: bool = False
    length: bool = True
    redirect: str | None = None
    stalled: asyncio.Event = field(default_factory=asyncio.Event)

    @property
    def paths(self) -> list[str]:
        return [path for path, _ in self.requests]

    @property
    def store_ranges(self) -> list[str | None]:
        """The Range headers of the requests to the file server."""
        return [header for path, header in self.requests if path.startswith("/store/")]

    def _note(self, request: web.Request) -> None:
        assert not {"Authorization", "Cookie"} & request.headers.keys()
        self.requests.append((request.path, request.headers.get("Range")))

    async def resolve(self, request: web.Request) -> web.Response:
        self._note(request)
        if self.status != 200:
            return web.Response(status=self.status)
        # Quoting this signature again would break it.
        location = self.redirect or f"/store/{request.match_info['name']}?signature=a%2Fb%3D+c"
        headers = {"Location": location, "Set-Cookie": "who=you"}
        return web.Response(status=302, headers=headers)

    async def store(self, request: web.Request) -> web.StreamResponse:
        self._note(request)
        assert request.raw_path.endswith("?signature=a%2Fb%3D+c")
        content, status, headers = self.files[request.match_info["name"]], 200, {}
        match = re.fullmatch(r"bytes=(\d+)-", request.headers.get("Range", ""))
        if match and self.ranges:
            start, whole = int(match[1]), len(content)
            if start >= whole:
                return web.Response(status=416)
            headers["Content-Range"] = f"bytes {start}-{whole - 1}/{whole}"
            content, status = content[start:], 206
        response = web.StreamResponse(status=status, headers=headers)
        if self.length:
            response.content_length = len(content)
        await response.prepare(request)
        body = content if self.cut is None else content[: self.cut]
        await response.write(body)
        if len(body) < len(content):
            if self.stall:
                self.stalled.set()
                await asyncio.sleep(60)
            await asyncio.sleep(0.2)  # a client discards unread bytes when the connection closes
            assert request.transport is not None
            request.transport.close()
        return response


@asynccontextmanager
async def serving(hub: LocalHub) -> AsyncIterator[str]:
    """Run the hub, and yield its address."""
    app = web.Application()
    app.router.add_get("/{owner}/{repository}/resolve/{revision}/{name}", hub.resolve)
    app.router.add_get("/store/{name}", hub.store)
    async with TestServer(app) as server:
        yield str(server.make_url("")).rstrip("/")
