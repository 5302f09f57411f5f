"""Fetching the paper's CLIP: huggingface_hub itself, against a hub on this machine."""

from __future__ import annotations

import asyncio
import shutil
from collections.abc import AsyncIterator, Callable, Coroutine
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import huggingface_hub.constants as hub_constants
import pytest
from aiohttp import web
from aiohttp.test_utils import TestClient, TestServer
from server import PromptServer

from .pack import ROOT, pack_module

CLIP = ROOT / "demo" / "models" / "emoji-canvas" / "evaluation"
REPOSITORY = "laion/CLIP-ViT-B-32-laion2B-s34B-b79K"
FILES = ("open_clip_config.json", "open_clip_model.safetensors")


class Hub:
    """The two addresses of the hub that a download asks for, and what was asked of it."""

    def __init__(self) -> None:
        self.asked: list[tuple[str, str]] = []
        self.may_send = asyncio.Event()
        self.may_send.set()
        self.status = 200
        self.spoil: Callable[[bytes], bytes] = lambda content: content

    async def answer(self, request: web.Request) -> web.Response:
        self.asked.append((request.method, request.path))
        assert "Authorization" not in request.headers
        name = request.match_info["file"]
        if self.status != 200:
            return web.Response(status=self.status)
        content = (CLIP / name).read_bytes()
        headers = {"ETag": f'"{name}"', "X-Repo-Commit": "0" * 40}
        if request.method == "GET":
            await self.may_send.wait()
            content = self.spoil(content)
        return web.Response(body=content, headers=headers)


@pytest.fixture
def sent(monkeypatch: pytest.MonkeyPatch) -> list[dict[str, Any]]:
    """What the page is told."""
    told: list[dict[str, Any]] = []

    class Page:
        def send_sync(self, event: str, data: dict[str, Any], sid: str | None = None) -> None:
            assert event == "unlearn.download"
            told.append(data)

    monkeypatch.setattr(PromptServer, "instance", Page(), raising=False)
    return told


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return tmp_path / "models" / "open_clip"


@asynccontextmanager
async def served(
    monkeypatch: pytest.MonkeyPatch,
) -> AsyncIterator[tuple[Hub, TestClient[Any, Any]]]:
    """A hub, and a page's view of the pack's own addresses."""
    download = pack_module("nodes.scorer_download")
    monkeypatch.setattr(download, "SECONDS", 0.05)
    hub, routes = Hub(), web.RouteTableDef()
    download.add_scorer_routes(routes)
    its_app, app = web.Application(), web.Application()
    its_app.router.add_route("*", f"/{REPOSITORY}/resolve/main/{{file}}", hub.answer)
    app.add_routes(routes)
    async with TestServer(its_app) as its_server, TestClient(TestServer(app)) as page:
        here = str(its_server.make_url("")).rstrip("/")
        template = hub_constants.HUGGINGFACE_CO_URL_TEMPLATE.replace(hub_constants.ENDPOINT, here)
        monkeypatch.setattr(hub_constants, "ENDPOINT", here)
        monkeypatch.setattr(hub_constants, "HUGGINGFACE_CO_URL_TEMPLATE", template)
        monkeypatch.setattr(hub_constants, "HF_HUB_OFFLINE", False)
        yield hub, page


async def state(page: TestClient[Any, Any]) -> dict[str, Any]:
    return await (await page.get("/unlearn/scorer")).json()


async def finished(page: TestClient[Any, Any]) -> dict[str, Any]:
    while (found := await state(page))["running"]:
        await asyncio.sleep(0.05)
    return found


def run(work: Coroutine[Any, Any, None]) -> None:
    asyncio.run(asyncio.wait_for(work, 60))


def test_it_is_fetched_once_and_judges(
    monkeypatch: pytest.MonkeyPatch, sent: list[dict[str, Any]], folder: Path
) -> None:
    async def work() -> None:
        async with served(monkeypatch) as (hub, page):
            before = await state(page)
            assert (before["present"], before["running"]) == (False, False)
            assert hub.asked == []
            hub.may_send.clear()
            answer = await page.post("/unlearn/scorer")
            assert (answer.status, (await answer.json())["running"]) == (200, True)
            assert (await page.post("/unlearn/scorer")).status == 409
            while not sent:
                await asyncio.sleep(0.05)
            assert list(folder.glob("[!.]*")) == []  # nothing in the list before it is whole
            hub.may_send.set()
            after = await finished(page)
            assert after["present"]
            assert {path.split("/")[-1] for _, path in hub.asked} == set(FILES)
            count = len(hub.asked)
            again = await page.post("/unlearn/scorer")
            assert (await again.json())["running"] is False
            assert len(hub.asked) == count

    run(work())
    total = sum((CLIP / name).stat().st_size for name in FILES)
    assert sent[-1] == {"done": total, "total": total, "error": None}
    assert all(0 <= event["done"] < event["total"] for event in sent[:-1])
    (name,) = [path.name for path in folder.iterdir()]
    assert sorted(path.name for path in (folder / name).iterdir()) == sorted(FILES)
    scorer = pack_module("unlearn_core.evaluation.alignment").ClipScorer.load(folder / name)
    assert scorer.embed_texts(["a cat"]).shape == (1, 64)
    assert name in pack_module("nodes.choices").scorers()


@pytest.mark.parametrize("trouble", ["not found", "cut short", "no safetensors"])
def test_what_goes_wrong_is_told_and_leaves_nothing(
    monkeypatch: pytest.MonkeyPatch, sent: list[dict[str, Any]], folder: Path, trouble: str
) -> None:
    async def work() -> None:
        async with served(monkeypatch) as (hub, page):
            if trouble == "not found":
                hub.status = 404
            elif trouble == "cut short":
                hub.spoil = lambda content: content[: len(content) // 2]
            else:
                hub.spoil = lambda content: (
                    b"\x80\x04" * (len(content) // 2) + b"x" * (len(content) % 2)
                )
            await page.post("/unlearn/scorer")
            assert not (await finished(page))["present"]

    run(work())
    assert f"{REPOSITORY} could not be fetched: " in sent[-1]["error"]
    assert not folder.exists() or list(folder.iterdir()) == []


def test_other_files_in_its_folder_are_no_trouble(
    monkeypatch: pytest.MonkeyPatch, sent: list[dict[str, Any]], folder: Path
) -> None:
    place = folder / REPOSITORY.split("/")[1]
    place.mkdir(parents=True)
    (place / "open_clip_pytorch_model.bin").write_bytes(b"somebody's")

    async def work() -> None:
        async with served(monkeypatch) as (_, page):
            await page.post("/unlearn/scorer")
            assert (await finished(page))["present"]

    run(work())
    assert sent[-1]["error"] is None
    assert (place / "open_clip_pytorch_model.bin").read_bytes() == b"somebody's"


def test_after_trouble_it_can_be_tried_again(
    monkeypatch: pytest.MonkeyPatch, sent: list[dict[str, Any]], folder: Path
) -> None:
    async def work() -> None:
        async with served(monkeypatch) as (hub, page):
            hub.status = 404
            await page.post("/unlearn/scorer")
            assert not (await finished(page))["present"]
            hub.status = 200
            await page.post("/unlearn/scorer")
            assert (await finished(page))["present"]

    run(work())
    assert sent[-1]["error"] is None


def test_a_clip_that_is_there_is_not_fetched(
    monkeypatch: pytest.MonkeyPatch, sent: list[dict[str, Any]], folder: Path
) -> None:
    shutil.copytree(CLIP, folder / REPOSITORY.split("/")[1])

    async def work() -> None:
        async with served(monkeypatch) as (hub, page):
            assert (await state(page))["present"]
            answer = await page.post("/unlearn/scorer")
            assert (answer.status, (await answer.json())["running"]) == (200, False)
            assert hub.asked == []

    run(work())
    assert sent == []
