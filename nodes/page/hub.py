"""The pack's only network client: pinned public files of the Hugging Face hub, with resumption."""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass
from ipaddress import ip_address
from os import environ
from pathlib import Path
from typing import Any, TypeVar
from urllib.request import getproxies, proxy_bypass

import aiohttp
from yarl import URL

HUB = "https://huggingface.co"
HOSTS = ("huggingface.co", "hf.co")  # and their subdomains: the hub redirects to its file servers
REDIRECTS, MOVED = 5, (301, 302, 303, 307, 308)
CHUNK = 1024 * 1024
# No limit for the whole download: a slow line may need hours.
TIMEOUT = aiohttp.ClientTimeout(total=None, sock_connect=30, sock_read=60)
HEADERS = {
    "User-Agent": "comfyui-unlearn",
    "Accept-Encoding": "identity",  # sizes, ranges and hashes are those of the file itself
}

FAILURES = (aiohttp.ClientError, OSError, ValueError)  # of everything in this file

Result = TypeVar("Result")


@dataclass(frozen=True)
class HubFile:
    """A file of one commit of a repository.

    Attributes:
        size: in bytes.
        sha256: in hexadecimal digits, as the hub publishes it.
    """

    repository: str
    revision: str
    name: str
    size: int
    sha256: str


@dataclass(frozen=True)
class Hub:
    """The Hugging Face hub, or the mirror that ``HF_ENDPOINT`` names."""

    endpoint: URL

    @classmethod
    def of_environment(cls) -> Hub:
        """The hub that the environment names, read anew at each call.

        Raises:
            ValueError: ``HF_ENDPOINT`` is no HTTPS address, nor one of this machine.
        """
        text = environ.get("HF_ENDPOINT") or HUB
        wrong = f"HF_ENDPOINT must be an address such as {HUB}, got {text!r:.80}"
        try:
            hub = cls(URL(text.rstrip("/")))
        except ValueError:
            raise ValueError(wrong) from None
        if not hub.may_ask(hub.endpoint):
            raise ValueError(wrong)
        return hub

    @property
    def host(self) -> str:
        return self.endpoint.host or str(self.endpoint)

    def may_ask(self, url: URL) -> bool:
        """Whether a request or a redirect may go there: over HTTPS to the hub, or to the endpoint,
        which may do without HTTPS on this machine."""
        if not url.host:
            return False
        if url.scheme == "https":
            known = any(url.host == host or url.host.endswith(f".{host}") for host in HOSTS)
            return known or url.origin() == self.endpoint.origin()
        same = url.scheme == "http" and url.origin() == self.endpoint.origin()
        return same and _is_loopback(url.host)

    async def fetch(self, file: HubFile, part: Path) -> None:
        """Complete ``part``, which may hold the beginning of the file. Its hash is not checked.

        Whatever ends this early, Cancel included, leaves ``part`` for the next call.

        Raises:
            FAILURES: whatever the network, the server or the disk refused.
        """
        refuse_offline()
        url = URL(f"{self.endpoint}/{file.repository}/resolve/{file.revision}/{file.name}")
        have = part.stat().st_size if part.exists() else 0
        if have == file.size:
            return
        starts = (have, 0) if 0 < have < file.size else (0,)
        connector = aiohttp.TCPConnector(ssl=_certificates())
        async with aiohttp.ClientSession(
            connector=connector,
            timeout=TIMEOUT,
            headers=HEADERS,
            cookie_jar=aiohttp.DummyCookieJar(),
            auto_decompress=False,
        ) as session:
            for start in starts:
                async with self._answer(session, url, start) as response:
                    if response.status == 416 and start:  # no such range: from the beginning
                        continue
                    await _save(response, file, part, start)
                    return

    @asynccontextmanager
    async def _answer(
        self, session: aiohttp.ClientSession, url: URL, start: int
    ) -> AsyncIterator[aiohttp.ClientResponse]:
        """The answer to a request for all bytes from ``start``, after the hub's redirects."""
        headers = {"Range": f"bytes={start}-"} if start else {}
        for _ in range(REDIRECTS):
            if not self.may_ask(url):
                raise ValueError(
                    f"{self.host} redirects to {url.scheme}://{url.host}, which is not an HTTPS "
                    "address of the hub; check HF_ENDPOINT and your network"
                )
            async with session.get(
                url, headers=headers, allow_redirects=False, proxy=_proxy(url)
            ) as response:
                if response.status not in MOVED:
                    yield response
                    return
                # Signed addresses are valid as they are written.
                url = url.join(URL(response.headers.get("Location", ""), encoded=True))
        raise ValueError(f"{self.host} redirects more than {REDIRECTS} times, try again later")


def refuse_offline() -> None:
    """Respect the offline mode of Hugging Face's libraries.

    Raises:
        ValueError: the environment sets it.
    """
    for name in ("HF_HUB_OFFLINE", "TRANSFORMERS_OFFLINE"):
        if environ.get(name, "").upper() in ("1", "ON", "YES", "TRUE"):
            raise ValueError(
                f"{name} is set, which forbids downloads: unset it and restart ComfyUI"
            )


async def in_thread(function: Callable[..., Result], *arguments: Any) -> Result:
    """The result of a blocking call. On Cancel too it waits for the end of the call, which may be
    using a file that is closed next."""
    work = asyncio.create_task(asyncio.to_thread(function, *arguments))
    cancelled = False
    while not work.done():
        try:
            await asyncio.wait({work})
        except asyncio.CancelledError:
            cancelled = True
    if cancelled:
        raise asyncio.CancelledError
    return work.result()


async def _save(response: aiohttp.ClientResponse, file: HubFile, part: Path, start: int) -> None:
    """Write the body to ``part``: from ``start`` if the server agrees, else from the beginning.

    Raises:
        ValueError: the answer is not the file. Nothing of it is written.
        ConnectionError: the body ended early.
    """
    host = response.url.host
    if response.status == 206 and start:
        if not response.headers.get("Content-Range", "").startswith(f"bytes {start}-"):
            raise ValueError(f"{host} sent another range of {file.name}, try again later")
    elif response.status == 200:
        start = 0
    else:
        raise ValueError(
            f"{host} answered {response.status} {response.reason} for {file.name}, try again later"
        )
    if response.content_length not in (None, file.size - start):
        raise ValueError(
            f"{host} offers {response.content_length} bytes of {file.name} in place of "
            f"{file.size - start}, which is another file; check HF_ENDPOINT and your network"
        )
    with part.open("ab" if start else "wb") as target, suppress(aiohttp.ClientPayloadError):
        async for data in response.content.iter_chunked(CHUNK):
            start += len(data)
            if start > file.size:
                raise ValueError(f"{host} sends more than the {file.size} bytes of {file.name}")
            await in_thread(target.write, data)
    if start < file.size:
        raise ConnectionError(
            f"the connection to {host} broke after {start / 1e6:.0f} of {file.size / 1e6:.0f} MB; "
            "try again to download the rest"
        )


def _is_loopback(host: str) -> bool:
    try:
        return ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def _proxy(url: URL) -> str | None:
    """The system's proxy. aiohttp's own ``trust_env`` would send the passwords of ``.netrc``."""
    if proxy_bypass(url.host or ""):
        return None
    return getproxies().get(url.scheme)


def _certificates() -> ssl.SSLContext:
    """The system's, and certifi's where it is installed: Python on a Mac may come without any."""
    context = ssl.create_default_context()
    with suppress(ImportError):
        import certifi

        context.load_verify_locations(certifi.where())
    return context
