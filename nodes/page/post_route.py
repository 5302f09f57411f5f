"""POST routes of the pack, which accept only JSON from ComfyUI's own page.

A browser lets any website post a form to a server on this machine. Before it posts JSON to another
origin, it asks the server for permission, and it states the origin in a header of every POST.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from typing import Any
from urllib.parse import urlsplit

from aiohttp import web

from ...unlearn_core.foundation.json_file import JsonError, parse_json

JSON = "application/json"
LARGEST = 64 * 1024  # bytes in a body
PORTS = {"http": 80, "https": 443}

Content = dict[str, Any]
Handler = Callable[[Content], Awaitable[Any]]


class RefusedError(Exception):
    """A request rejected before it reaches its handler."""

    def __init__(self, status: int, reason: str) -> None:
        super().__init__(reason)
        self.status = status


def add_post(
    routes: web.RouteTableDef, path: str, handler: Handler, *, largest: int = LARGEST
) -> None:
    """Add a POST route. Errors are answered with ``{"error": reason}``.

    Args:
        handler: receives the JSON object of the body and returns the JSON of the answer. Its
            ``ValueError`` becomes status 400.
        largest: limit of the body in bytes.
    """

    @routes.post(path)
    async def answer(request: web.Request) -> web.Response:
        try:
            refuse_other_origins(request.headers)
            return web.json_response(await handler(await _content(request, largest)))
        except RefusedError as refused:
            return web.json_response({"error": str(refused)}, status=refused.status)
        except ValueError as error:
            return web.json_response({"error": str(error)}, status=400)


def refuse_other_origins(headers: Mapping[str, str]) -> None:
    """Refuse requests that a browser sends on behalf of another page.

    ``Sec-Fetch-Site`` decides if the browser sends it (over HTTPS and to localhost); this works
    behind a reverse proxy that rewrites ``Host``. Otherwise ``Origin`` must match ``Host``.
    Requests without either header do not come from a browser and pass. ``--enable-cors-header``
    opens ComfyUI's own routes to other origins, but not these.

    Raises:
        RefusedError: status 403.
    """
    site, origin, host = (headers.get(name) for name in ("Sec-Fetch-Site", "Origin", "Host"))
    if site is not None:
        if site not in ("same-origin", "none"):
            raise RefusedError(
                403,
                f"Sec-Fetch-Site is {site!r:.80}: only ComfyUI's own page may send this; "
                "reload it and try again there",
            )
    elif origin is not None and not _is_origin_of(origin, host or ""):
        raise RefusedError(
            403,
            f"Origin {origin!r:.80} is not this server, {host!r:.80}: only ComfyUI's own page may "
            "send this; a reverse proxy must pass on the Host header",
        )


def _is_origin_of(origin: str, host: str) -> bool:
    """Whether host and port agree. The scheme may differ, because a proxy may terminate HTTPS."""
    try:
        page, server = urlsplit(origin), urlsplit(f"//{host}")
        default = PORTS.get(page.scheme)
        host_and_port = (server.hostname, server.port or default)
        return page.hostname is not None and (page.hostname, page.port or default) == host_and_port
    except ValueError:  # not an address, such as "http://["
        return False


async def _content(request: web.Request, largest: int) -> Content:
    """The JSON object of the body.

    Raises:
        RefusedError: another content type, a body over the limit, or not a JSON object.
    """
    if request.content_type != JSON:
        raise RefusedError(415, f"Content-Type must be {JSON}, got {request.content_type!r:.80}")
    too_large = RefusedError(413, f"the body is larger than {largest} bytes; send less")
    if (request.content_length or 0) > largest:  # refused before it is read
        raise too_large
    try:
        body = await request.read()
    except web.HTTPRequestEntityTooLarge:  # ComfyUI's own limit, for a body without a length
        raise too_large from None
    if len(body) > largest:
        raise too_large
    try:
        content = parse_json(body, largest)
    except JsonError as error:
        raise RefusedError(400, f"the body {error}") from None
    if not isinstance(content, dict):
        raise RefusedError(400, f"the body must be a JSON object, got {type(content).__name__}")
    return content
