"""Fixtures of the live tests: one ComfyUI server for all of them, and a browser."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest
from comfy_command import ComfyCli
from comfy_page import FLAGS, ComfyPage, open_page, open_tab
from front_ends import EVERY_VIEW, IN_FULL, NEWEST, ON_BOTH, View, newest
from live_server import PACK, PACK_FOLDER, LiveServer, running_server
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
    """A git-ignored folder for screenshots and logs to look at after a run."""
    folder = PACK / "test_artifacts"
    folder.mkdir(exist_ok=True)
    return folder


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption(
        "--every-view",
        action="store_true",
        help="page tests on both front ends in every look; without it a selection, for CI",
    )


def pytest_configure(config: pytest.Config) -> None:
    config.addinivalue_line("markers", "both_front_ends: always run on the oldest and the newest")
    config.addinivalue_line("markers", "every_view: always run on both and in every look")
    config.addinivalue_line("markers", "classic_look: tests something that Nodes 2.0 lacks")
    config.addinivalue_line("markers", "nodes_2: tests something that the classic look lacks")


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """Run a test with a ``view`` argument in each selected view."""
    if "view" not in metafunc.fixturenames:
        return
    definition = metafunc.definition
    if metafunc.config.getoption("--every-view") or definition.get_closest_marker("every_view"):
        views = EVERY_VIEW
    else:
        views = ON_BOTH if definition.get_closest_marker("both_front_ends") else IN_FULL
    if definition.get_closest_marker("classic_look"):
        views = [view for view in views if not view.nodes_2]
    if definition.get_closest_marker("nodes_2"):
        views = [view for view in views if view.nodes_2]
    metafunc.parametrize("view", views, ids=[view.name for view in views], scope="session")


@pytest.fixture(scope="session")
def server(
    comfyui: Path, artifacts: Path, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[LiveServer]:
    """A live server with the pack and `tiny_models` in its custom_nodes, and the newest front
    end."""
    base, log = tmp_path_factory.mktemp("comfyui"), artifacts / "server.log"
    packs = [Path(__file__).parent / "tiny_models"]
    with running_server(
        comfyui, base, log, with_pack=True, arguments=newest(), packs=packs
    ) as server:
        yield server


@pytest.fixture(scope="session")
def own_server(
    comfyui: Path, artifacts: Path, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[LiveServer]:
    """A second server, with the front end that is installed with ComfyUI."""
    base, log = tmp_path_factory.mktemp("own"), artifacts / "own_server.log"
    with running_server(comfyui, base, log, with_pack=True) as server:
        yield server


@pytest.fixture
def view_server(view: View, request: pytest.FixtureRequest) -> LiveServer:
    """The server with the view's front end."""
    return request.getfixturevalue("server" if view.front_end == NEWEST else "own_server")


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
def page(tab: Page, view: View, view_server: LiveServer, artifacts: Path) -> Iterator[ComfyPage]:
    """ComfyUI's page with the pack in this view, opened and ready."""
    view_server.forget_results()
    with open_page(tab, view_server, artifacts, view.settings) as page:
        yield page
        assert [error for error in page.errors if PACK_FOLDER in error] == []
    view_server.interrupt()  # else a run left by a failed test would block all others
