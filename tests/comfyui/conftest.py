"""Fixtures of the live tests: one ComfyUI server for all of them, and a browser."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest
from comfy_command import ComfyCli
from comfy_page import FLAGS, ComfyPage, open_page, open_tab
from live_server import PACK, LiveServer, running_server
from playwright.sync_api import Browser, Page, sync_playwright


@pytest.fixture(scope="session")
def comfyui() -> Path:
    """The folder of a real ComfyUI."""
    folder = Path(os.environ.get("COMFYUI_PATH") or PACK / ".comfyui" / "ComfyUI")
    if not (folder / "main.py").is_file():
        pytest.fail(f"no ComfyUI in {folder}: run `python run.py test`, or set COMFYUI_PATH")
    return folder.resolve()


@pytest.fixture(scope="session")
def comfy(comfyui: Path, tmp_path_factory: pytest.TempPathFactory) -> ComfyCli:
    return ComfyCli(tmp_path_factory.mktemp("home"), comfyui)


@pytest.fixture(scope="session")
def artifacts() -> Path:
    """An ignored folder for what a person may want to look at after a run."""
    folder = PACK / "test_artifacts"
    folder.mkdir(exist_ok=True)
    return folder


@pytest.fixture(scope="session")
def server(
    comfyui: Path, artifacts: Path, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[LiveServer]:
    """The one live server with the pack in its custom_nodes."""
    base = tmp_path_factory.mktemp("comfyui")
    with running_server(comfyui, base, artifacts / "server.log", with_pack=True) as server:
        yield server


@pytest.fixture(scope="session")
def browser(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Browser]:
    chromium = shutil.which("chromium") or shutil.which("google-chrome")
    if chromium is None:
        pytest.fail("no Chromium: install it (on Debian `apt install chromium`)")
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(
            executable_path=chromium,
            args=list(FLAGS),
            env={**os.environ, "HOME": str(tmp_path_factory.mktemp("browser"))},
        )
        yield browser
        browser.close()


@pytest.fixture(scope="session")
def tab(browser: Browser) -> Iterator[Page]:
    with open_tab(browser) as tab:
        yield tab


@pytest.fixture
def page(tab: Page, server: LiveServer, artifacts: Path) -> Iterator[ComfyPage]:
    """ComfyUI's page with the pack, opened and ready."""
    with open_page(tab, server, artifacts) as page:
        yield page
