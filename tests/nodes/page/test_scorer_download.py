"""The download of the paper's CLIP, against a hub on this machine."""

from __future__ import annotations

import ast
import asyncio
import hashlib
import json
import shutil
from collections.abc import AsyncIterator, Coroutine, Iterator
from contextlib import asynccontextmanager
from itertools import pairwise
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import open_clip
import pytest
from aiohttp import web
from aiohttp.test_utils import TestClient, TestServer
from yarl import URL

from ..conftest import FakeServer
from ..pack import ROOT, pack_module
from .local_hub import LocalHub, serving

CLIP = ROOT / "demo" / "models" / "emoji-canvas" / "evaluation"
NAME = "CLIP-ViT-B-32-laion2B-s34B-b79K"
CONFIG, WEIGHTS = "open_clip_config.json", "open_clip_model.safetensors"
CONTENT = {name: (CLIP / name).read_bytes() for name in (CONFIG, WEIGHTS)}
TOTAL = sum(map(len, CONTENT.values()))
REVISION = "0" * 40
HALF = len(CONTENT[WEIGHTS]) // 2

downloads = pack_module("nodes.page.scorer_download")
hubs = pack_module("nodes.page.hub")


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return tmp_path / "models" / "open_clip"


@pytest.fixture
def part(folder: Path) -> Path:
    """The file of the incomplete weights."""
    return folder / f".{NAME}.part" / WEIGHTS


@pytest.fixture
def hub() -> LocalHub:
    return LocalHub(dict(CONTENT))


@pytest.fixture(autouse=True)
def events(page: FakeServer, monkeypatch: pytest.MonkeyPatch) -> Iterator[list[dict[str, Any]]]:
    """The events sent to the page, in an environment that allows downloads."""
    monkeypatch.setattr(downloads, "SECONDS", 0.02)
    for name in ("HF_HUB_OFFLINE", "TRANSFORMERS_OFFLINE"):
        monkeypatch.delenv(name, raising=False)
    events: list[dict[str, Any]] = []
    monkeypatch.setattr(page, "send_sync", lambda event, data: events.append({event: data}))
    yield events
    assert {name for event in events for name in event} <= {"unlearn.download"}


@asynccontextmanager
async def opened(hub: LocalHub, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Pack]:
    """The pack's routes with the small CLIP to download, as after a start of ComfyUI."""
    files = tuple(
        hubs.HubFile(f"laion/{NAME}", REVISION, name, len(data), hashlib.sha256(data).hexdigest())
        for name, data in CONTENT.items()
    )
    routes = web.RouteTableDef()
    downloads.add_scorer_routes(routes, downloads.Download(files))
    app = web.Application()
    app.add_routes(routes)
    async with serving(hub) as address, TestClient(TestServer(app)) as client:
        monkeypatch.setenv("HF_ENDPOINT", address)
        yield Pack(client)


class Pack:
    """The routes as the page uses them."""

    def __init__(self, client: TestClient[Any, Any]) -> None:
        self.client = client

    async def state(self) -> dict[str, Any]:
        return await (await self.client.get("/unlearn/scorer")).json()

    async def press(self, path: str = "/unlearn/scorer") -> dict[str, Any]:
        answer = await self.client.post(path, json={})
        assert answer.status == 200
        return await answer.json()

    async def cancel(self) -> dict[str, Any]:
        return await self.press("/unlearn/scorer/cancel")

    async def ended(self) -> dict[str, Any]:
        while (state := await self.state())["state"] in ("downloading", "checking"):
            await asyncio.sleep(0.02)
        return state

    async def download(self) -> dict[str, Any]:
        assert (await self.press())["state"] == "downloading"
        return await self.ended()


def run(work: Coroutine[Any, Any, None]) -> None:
    asyncio.run(asyncio.wait_for(work, 60))


def is_whole(folder: Path) -> bool:
    assert [path.name for path in folder.iterdir()] == [NAME]  # and nothing hidden beside it
    return {path.name: path.read_bytes() for path in (folder / NAME).iterdir()} == CONTENT


def test_the_pinned_files() -> None:
    """The configuration is open_clip's own, on the hub since 2022, so it can be rebuilt here."""
    config, weights = downloads.FILES
    normal = {
        "mean": [0.48145466, 0.4578275, 0.40821073],
        "std": [0.26862954, 0.26130258, 0.27577711],
    }
    model = open_clip.get_model_config("ViT-B-32")
    text = json.dumps({"model_cfg": model, "preprocess_cfg": normal}, indent=4) + "\n"
    assert (config.name, weights.name) == (CONFIG, WEIGHTS)
    assert len(text) == config.size
    assert hashlib.sha256(text.encode()).hexdigest() == config.sha256
    assert len(weights.sha256) == 64
    assert len({len(file.revision) for file in downloads.FILES} | {40}) == 1
    assert round(sum(file.size for file in downloads.FILES) / 1e6) == 605  # as in the texts


def test_it_is_downloaded_once_and_works(
    hub: LocalHub,
    folder: Path,
    events: list[dict[str, Any]],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    async def work() -> None:
        async with opened(hub, monkeypatch) as pack:
            before = await pack.state()
            assert before == {
                "at": before["at"],
                "state": "absent",
                "done": 0,
                "total": TOTAL,
                "source": "127.0.0.1",
                "error": None,
            }
            assert hub.requests == []
            after = await pack.download()
            assert (after["state"], after["done"], after["error"]) == ("present", TOTAL, None)
            resolved = [f"/laion/{NAME}/resolve/{REVISION}/{name}" for name in CONTENT]
            assert [path for path in hub.paths if "resolve" in path] == resolved
            count = len(hub.requests)
            assert (await pack.press())["state"] == "present"
            assert len(hub.requests) == count

    run(work())
    states = [event["unlearn.download"] for event in events]
    order = ["downloading", "checking", "present"]
    assert list(dict.fromkeys(state["state"] for state in states)) == order
    assert all(0 <= a["done"] <= b["done"] for a, b in pairwise(states))
    assert is_whole(folder)
    scorer = pack_module("unlearn_core.judging.clip_scorer").ClipScorer.load(folder / NAME)
    assert scorer.embed_texts(["a cat"]).shape == (1, 64)
    assert NAME in pack_module("nodes.host.folders").scorers()


def test_a_second_press_starts_no_second_download(
    hub: LocalHub, monkeypatch: pytest.MonkeyPatch
) -> None:
    hub.cut, hub.stall = HALF, True

    async def work() -> None:
        async with opened(hub, monkeypatch) as pack:
            await pack.press()
            await hub.stalled.wait()
            count = len(hub.requests)
            assert (await pack.press())["state"] == "downloading"
            await asyncio.sleep(0.1)
            assert len(hub.requests) == count
            await pack.cancel()

    run(work())


def test_cancel_keeps_the_bytes_and_the_next_press_resumes(
    hub: LocalHub, folder: Path, part: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    hub.cut, hub.stall = HALF, True

    async def work() -> None:
        async with opened(hub, monkeypatch) as pack:
            await pack.press()
            await hub.stalled.wait()
            while (await pack.state())["done"] < HALF:
                await asyncio.sleep(0.02)
            stopped = await pack.cancel()
            assert (stopped["state"], stopped["error"]) == ("absent", None)
            assert stopped["done"] == len(CONTENT[CONFIG]) + HALF
            assert part.read_bytes() == CONTENT[WEIGHTS][:HALF]
            assert pack_module("nodes.host.folders").scorers() == ["the model's own"]
            again = await pack.cancel()  # nothing is running any more
            assert again == {**stopped, "at": again["at"]}
        hub.cut = None
        async with opened(hub, monkeypatch) as restarted:
            assert (await restarted.state())["done"] == stopped["done"]
            assert (await restarted.download())["state"] == "present"

    run(work())
    assert hub.store_ranges == [None, None, f"bytes={HALF}-"]
    assert is_whole(folder)


def test_cancel_before_the_first_byte_and_again(
    hub: LocalHub, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def work() -> None:
        async with opened(hub, monkeypatch) as pack:
            await pack.press()
            assert (await pack.cancel())["state"] == "absent"
            assert (await pack.download())["state"] == "present"

    run(work())
    assert is_whole(folder)


def test_cancel_while_the_hashes_are_checked(
    hub: LocalHub, folder: Path, part: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    slow = asyncio.Event()
    verify = downloads._verify

    async def slow_verify(file: object, part: Path) -> None:
        await slow.wait()
        await verify(file, part)

    monkeypatch.setattr(downloads, "_verify", slow_verify)

    async def work() -> None:
        async with opened(hub, monkeypatch) as pack:
            await pack.press()
            while (await pack.state())["state"] != "checking":
                await asyncio.sleep(0.02)
            stopped = await pack.cancel()
            assert (stopped["state"], stopped["done"]) == ("absent", TOTAL)
            count = len(hub.requests)
            slow.set()
            assert (await pack.download())["state"] == "present"
            assert len(hub.requests) == count  # no byte was missing

    run(work())
    assert is_whole(folder)


def test_a_broken_connection_is_reported_and_resumed(
    hub: LocalHub, folder: Path, part: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    hub.cut = HALF

    async def work() -> None:
        async with opened(hub, monkeypatch) as pack:
            broken = await pack.download()
            assert broken["state"] == "absent"
            message = (
                f"laion/{NAME} could not be downloaded: the connection to 127.0.0.1 broke after"
            )
            assert message in broken["error"]
            arrived = part.stat().st_size
            assert 0 < arrived <= HALF
            hub.cut = None
            assert (await pack.download())["error"] is None
            assert hub.store_ranges[-1] == f"bytes={arrived}-"

    run(work())
    assert is_whole(folder)


@pytest.mark.parametrize("trouble", ["no ranges", "part too long", "server has less", "no length"])
def test_it_starts_over_if_it_cannot_resume(
    hub: LocalHub, folder: Path, part: Path, monkeypatch: pytest.MonkeyPatch, trouble: str
) -> None:
    part.parent.mkdir(parents=True)
    part.write_bytes(CONTENT[WEIGHTS][:HALF])
    if trouble == "no ranges":
        hub.ranges = False
    elif trouble == "part too long":
        part.write_bytes(CONTENT[WEIGHTS] + b"more")
    elif trouble == "no length":
        hub.ranges = hub.length = False
    else:
        hub.files[WEIGHTS] = b"a draft"

    async def work() -> None:
        async with opened(hub, monkeypatch) as pack:
            if trouble == "server has less":
                error = (await pack.download())["error"]
                assert f"7 bytes of {WEIGHTS} instead of {2 * HALF}" in error
                assert hub.store_ranges == [None, f"bytes={HALF}-", None]
                hub.files = dict(CONTENT)
            assert (await pack.download())["state"] == "present"

    run(work())
    assert is_whole(folder)


def test_another_file_of_the_same_size_is_deleted(
    hub: LocalHub, folder: Path, part: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    hub.files[WEIGHTS] = CONTENT[WEIGHTS][:-1] + b"?"

    async def work() -> None:
        async with opened(hub, monkeypatch) as pack:
            error = (await pack.download())["error"]
            assert f"{WEIGHTS} arrived with SHA-256" in error
            assert not part.exists()
            assert not (folder / NAME).exists()
            hub.files = dict(CONTENT)
            assert (await pack.download())["state"] == "present"

    run(work())
    assert is_whole(folder)


@pytest.mark.parametrize(
    ("trouble", "words"),
    [
        ({"status": 404}, "127.0.0.1 answered 404 Not Found for open_clip_config.json"),
        ({"redirect": "http://huggingface.co/x"}, "redirects to http://huggingface.co, which"),
        ({"redirect": "https://huggingface.co.example.org/x"}, "redirects to https://huggingface"),
        ({"redirect": "file:///etc/passwd"}, "redirects to file://"),
        ({"redirect": f"/laion/{NAME}/resolve/x/{CONFIG}"}, "redirects more than 5 times"),
        ({"redirect": "http://["}, "could not be downloaded: "),
    ],
)
def test_network_errors_are_reported_and_leave_no_file(
    hub: LocalHub, folder: Path, monkeypatch: pytest.MonkeyPatch, trouble: Any, words: str
) -> None:
    for name, value in trouble.items():
        setattr(hub, name, value)

    async def work() -> None:
        async with opened(hub, monkeypatch) as pack:
            assert words in (await pack.download())["error"]

    run(work())
    assert [path for path in folder.rglob("*") if path.is_file()] == []


def test_a_body_beyond_the_size_is_not_written(
    hub: LocalHub, part: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    hub.length, hub.files[WEIGHTS] = False, CONTENT[WEIGHTS] * 2

    async def work() -> None:
        async with opened(hub, monkeypatch) as pack:
            assert "sends more than the" in (await pack.download())["error"]

    run(work())
    assert part.stat().st_size <= len(CONTENT[WEIGHTS])


def test_a_full_disk_is_reported_before_the_first_byte(
    hub: LocalHub, monkeypatch: pytest.MonkeyPatch
) -> None:
    free = SimpleNamespace(free=2_000_000)
    monkeypatch.setattr(downloads.shutil, "disk_usage", lambda _: free)

    async def work() -> None:
        async with opened(hub, monkeypatch) as pack:
            error = (await pack.download())["error"]
            assert f"{TOTAL / 1e6:.0f} MB are still needed, but only 2 MB are free" in error
            assert hub.requests == []

    run(work())


@pytest.mark.parametrize("name", ["HF_HUB_OFFLINE", "TRANSFORMERS_OFFLINE"])
def test_offline_means_offline(hub: LocalHub, monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    async def work() -> None:
        async with opened(hub, monkeypatch) as pack:
            monkeypatch.setenv(name, "1")
            assert f"{name} is set" in (await pack.download())["error"]
            assert hub.requests == []

    run(work())


def test_passwords_in_netrc_are_not_sent(
    hub: LocalHub, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    netrc = tmp_path / "netrc"
    netrc.write_text("default login me password secret\n", encoding="utf-8")
    monkeypatch.setenv("NETRC", str(netrc))

    async def work() -> None:  # the hub refuses a request with credentials
        async with opened(hub, monkeypatch) as pack:
            assert (await pack.download())["state"] == "present"

    run(work())


def test_other_files_in_its_folder_stay(
    hub: LocalHub, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    place = folder / NAME
    place.mkdir(parents=True)
    (place / "open_clip_pytorch_model.bin").write_bytes(b"somebody's")

    async def work() -> None:
        async with opened(hub, monkeypatch) as pack:
            assert (await pack.download())["state"] == "present"

    run(work())
    assert (place / "open_clip_pytorch_model.bin").read_bytes() == b"somebody's"
    assert (place / WEIGHTS).read_bytes() == CONTENT[WEIGHTS]


def test_an_installed_clip_is_not_downloaded(
    hub: LocalHub, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    shutil.copytree(CLIP, folder / NAME)

    async def work() -> None:
        async with opened(hub, monkeypatch) as pack:
            assert (await pack.press())["state"] == "present"
            assert hub.requests == []

    run(work())


@pytest.mark.parametrize(
    ("endpoint", "url", "allowed"),
    [
        ("", "https://huggingface.co/x", True),
        ("", "https://cas-bridge.xethub.hf.co/x", True),
        ("", "https://cdn-lfs.huggingface.co/x", True),
        ("", "http://huggingface.co/x", False),
        ("", "https://nothf.co/x", False),
        ("", "https://hf.co.example.org/x", False),
        ("", "http://127.0.0.1:80/x", False),
        ("", "file:///x", False),
        ("https://mirror.example.org", "https://mirror.example.org/x", True),
        ("https://mirror.example.org", "https://huggingface.co/x", True),
        ("https://mirror.example.org", "https://mirror.example.org:8443/x", False),
        ("https://mirror.example.org", "https://a.mirror.example.org/x", False),
        ("http://127.0.0.1:8000", "http://127.0.0.1:8000/x", True),
        ("http://localhost:8000", "http://localhost:8000/x", True),
        ("http://127.0.0.1:8000", "http://127.0.0.1:8001/x", False),
    ],
)
def test_where_a_request_may_go(
    endpoint: str, url: str, allowed: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HF_ENDPOINT", endpoint)
    assert hubs.Hub.of_environment().allows(URL(url)) is allowed


@pytest.mark.parametrize(
    "endpoint", ["mirror.example.org", "http://mirror.example.org", "http://[", "file:///x"]
)
def test_an_invalid_endpoint_is_reported(
    hub: LocalHub, monkeypatch: pytest.MonkeyPatch, endpoint: str
) -> None:
    async def work() -> None:
        async with opened(hub, monkeypatch) as pack:
            monkeypatch.setenv("HF_ENDPOINT", endpoint)
            for answer in (
                await pack.client.get("/unlearn/scorer"),
                await pack.client.post("/unlearn/scorer", json={}),
            ):
                assert answer.status in (400, 500)
                assert "HF_ENDPOINT must be an address such as" in (await answer.json())["error"]

    run(work())


CLIENTS = ("requests", "urllib.request", "urllib3", "http", "httpx", "socket", "huggingface_hub")


def test_no_other_file_of_the_pack_is_a_network_client() -> None:
    """By its imports; the server part of aiohttp is allowed anywhere."""
    imports = {}
    for file in (
        ROOT / "__init__.py",
        *ROOT.glob("nodes/**/*.py"),
        *ROOT.glob("unlearn_core/**/*.py"),
    ):
        for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Import):
                names = [alias.name for alias in node.names]
            elif isinstance(node, ast.ImportFrom) and node.level == 0:
                names = [f"{node.module}.{alias.name}" for alias in node.names]
            else:
                continue
            clients = [name for name in names if _is_client(name)]
            imports.setdefault(file.relative_to(ROOT).as_posix(), []).extend(clients)
    assert [file for file, clients in imports.items() if clients] == ["nodes/page/hub.py"]


def _is_client(name: str) -> bool:
    """Whether an import belongs to a network client; of aiohttp, only the server part does not."""
    if name.startswith("aiohttp"):
        return name != "aiohttp.web"
    return any(f"{name}.".startswith(f"{client}.") for client in CLIENTS)
