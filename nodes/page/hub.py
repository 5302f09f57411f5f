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

FAILURES = (aiohttp.ClientError, OSError, ValueError)  # all errors that this module raises

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
    """The Hugging Face hub, or the mirror in ``HF_ENDPOINT``."""

    endpoint: URL

    @classmethod
    def of_environment(cls) -> Hub:
        """The hub set in the environment, which is read at each call.

        Raises:
            ValueError: ``HF_ENDPOINT`` is neither an HTTPS address nor one of this machine.
        """
        text = environ.get("HF_ENDPOINT") or HUB
        message = f"HF_ENDPOINT must be an address such as {HUB}, got {text!r:.80}"
        try:
            hub = cls(URL(text.rstrip("/")))
        except ValueError:
            raise ValueError(message) from None
        if not hub.allows(hub.endpoint):
            raise ValueError(message)
        return hub

    @property
    def host(self) -> str:
        return self.endpoint.host or str(self.endpoint)

    def allows(self, url: URL) -> bool:
        """Whether a request or a redirect may go there: over HTTPS to the hub or the endpoint, or
        over HTTP to an endpoint on this machine."""
        if not url.host:
            return False
        if url.scheme == "https":
            is_hub = any(url.host == host or url.host.endswith(f".{host}") for host in HOSTS)
            return is_hub or url.origin() == self.endpoint.origin()
        is_endpoint = url.scheme == "http" and url.origin() == self.endpoint.origin()
        return is_endpoint and _is_loopback(url.host)

    async def fetch(self, file: HubFile, part: Path) -> None:
        """Download the missing bytes of ``part``, which may contain the beginning of the file. The
        hash is not checked. If the download fails or is cancelled, the next call resumes it.

        Raises:
            FAILURES: errors of the network, the server or the disk.
        """
        refuse_offline()
        url = URL(f"{self.endpoint}/{file.repository}/resolve/{file.revision}/{file.name}")
        size = part.stat().st_size if part.exists() else 0
        if size == file.size:
            return
        starts = (size, 0) if 0 < size < file.size else (0,)
        connector = aiohttp.TCPConnector(ssl=_certificates())
        async with aiohttp.ClientSession(
            connector=connector,
            timeout=TIMEOUT,
            headers=HEADERS,
            cookie_jar=aiohttp.DummyCookieJar(),
            auto_decompress=False,
        ) as session:
            for start in starts:
                async with self._request(session, url, start) as response:
                    if response.status == 416 and start:  # no such range: start over
                        continue
                    await _save(response, file, part, start)
                    return

    @asynccontextmanager
    async def _request(
        self, session: aiohttp.ClientSession, url: URL, start: int
    ) -> AsyncIterator[aiohttp.ClientResponse]:
        """Request all bytes from ``start``, and follow the hub's redirects."""
        headers = {"Range": f"bytes={start}-"} if start else {}
        for _ in range(REDIRECTS):
            if not self.allows(url):
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
                # Encoding a signed address again would invalidate it.
                url = url.join(URL(response.headers.get("Location", ""), encoded=True))
        raise ValueError(f"{self.host} redirects more than {REDIRECTS} times; try again later")


def refuse_offline() -> None:
    """Respect the offline mode of Hugging Face's libraries.

    Raises:
        ValueError: the environment sets it.
    """
    for name in ("HF_HUB_OFFLINE", "TRANSFORMERS_OFFLINE"):
        if environ.get(name, "").upper() in ("1", "ON", "YES", "TRUE"):
            raise ValueError(
                f"{name} is set, which forbids downloads; unset it and restart ComfyUI"
            )


async def in_thread(function: Callable[..., Result], *arguments: Any) -> Result:
    """Run a blocking function in a thread. Cancellation waits for its end, because it may be using
    a file that the caller closes next."""
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
    """Write the body to ``part``, from ``start`` if the server supports it, else from the
    beginning.

    Raises:
        ValueError: the response is not the file.
        ConnectionError: the body ended early.
    """
    host = response.url.host
    if response.status == 206 and start:
        if not response.headers.get("Content-Range", "").startswith(f"bytes {start}-"):
            raise ValueError(f"{host} sent the wrong part of {file.name}; try again later")
    elif response.status == 200:
        start = 0
    else:
        raise ValueError(
            f"{host} answered {response.status} {response.reason} for {file.name}; try again later"
        )
    if response.content_length not in (None, file.size - start):
        raise ValueError(
            f"{host} offers {response.content_length} bytes of {file.name} instead of "
            f"{file.size - start}, so it is another file; check HF_ENDPOINT and your network"
        )
    with part.open("ab" if start else "wb") as target, suppress(aiohttp.ClientPayloadError):
        async for data in response.content.iter_chunked(CHUNK):
            start += len(data)
            if start > file.size:
                raise ValueError(
                    f"{host} sends more than the {file.size} bytes of {file.name}; check "
                    "HF_ENDPOINT and your network"
                )
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
    """The system's proxy. aiohttp's ``trust_env`` would also send the passwords in ``.netrc``."""
    if proxy_bypass(url.host or ""):
        return None
    return getproxies().get(url.scheme)


def _certificates() -> ssl.SSLContext:
    """The system's certificates, and certifi's if installed: Python on a Mac may have none."""
    context = ssl.create_default_context()
    with suppress(ImportError):
        import certifi

        context.load_verify_locations(certifi.where())
    return context
