"""The archive that `comfy node publish` would send to ComfyUI's registry."""

from __future__ import annotations

import ast
import re
import shutil
import subprocess
import zipfile
from collections.abc import Iterator
from pathlib import Path
from urllib.request import urlopen

import pytest
from archive_scan import findings_in_page, findings_in_python
from comfy_cli.registry import extract_node_configuration
from comfy_command import ComfyCli
from live_server import PACK, PACK_FOLDER, LiveServer, running_server
from workflow_files import DEMO, QUICK, WORKFLOWS, as_prompt, read, with_widgets

MAY_DOWNLOAD = {"nodes/page/hub.py"}
LARGE = 500_000  # bytes
NAME = re.compile(r"[\w.-]+")


@pytest.fixture(scope="module")
def repository(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A copy of the tracked files, because the packer writes its archive into the folder."""
    names = subprocess.check_output(["git", "ls-files", "-z"], cwd=PACK, encoding="utf-8")
    repository = tmp_path_factory.mktemp("repository")
    for name in names.rstrip("\0").split("\0"):
        if (PACK / name).is_file():
            (repository / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(PACK / name, repository / name)
    subprocess.run(["git", "init", "-q"], cwd=repository, check=True)
    subprocess.run(["git", "add", "--all", "--force"], cwd=repository, check=True)
    return repository


@pytest.fixture(scope="module")
def base(comfy: ComfyCli, repository: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A base directory with the unpacked archive in its custom_nodes."""
    packed = comfy("node", "pack", cwd=repository)
    assert packed.returncode == 0, packed.stdout
    base = tmp_path_factory.mktemp("published")
    with zipfile.ZipFile(repository / "node.zip") as archive:
        archive.extractall(base / "custom_nodes" / PACK_FOLDER)
    return base


@pytest.fixture(scope="module")
def pack(base: Path) -> Path:
    return base / "custom_nodes" / PACK_FOLDER


@pytest.fixture(scope="module")
def published(comfyui: Path, base: Path, artifacts: Path, pack: Path) -> Iterator[LiveServer]:
    """A ComfyUI with only the unpacked archive as a pack."""
    log = artifacts / "published.log"
    with running_server(comfyui, base, log, with_pack=False) as server:
        yield server


def files_in(folder: Path, *suffixes: str) -> dict[str, Path]:
    """Files by their path in the folder, with one of the suffixes, without compiled Python."""
    files = {file.relative_to(folder).as_posix(): file for file in folder.rglob("*")}
    return {
        name: file
        for name, file in files.items()
        if file.is_file() and file.suffix != ".pyc" and (not suffixes or file.suffix in suffixes)
    }


def reached_from(entry: Path) -> set[Path]:
    """All modules of the pack that a module imports, directly or indirectly."""
    reached: set[Path] = set()
    waiting = [entry]
    while waiting:
        file = waiting.pop()
        if file in reached or not file.is_file():
            continue
        reached.add(file)
        # Python runs the enclosing packages of a module first.
        packages = [folder for folder in file.parents if folder.is_relative_to(entry.parent)]
        waiting += [folder / "__init__.py" for folder in packages]
        for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
            if isinstance(node, ast.ImportFrom) and node.level:
                package = file.parents[node.level - 1]
                module = package.joinpath(*(node.module or "").split("."))
                for path in (module, *(module / alias.name for alias in node.names)):
                    waiting += [path.with_suffix(".py"), path / "__init__.py"]
    return reached


def test_it_contains_exactly_the_code_that_comfyui_needs(pack: Path) -> None:
    assert set(files_in(pack, ".py").values()) == reached_from(pack / "__init__.py")


def test_it_contains_models_and_page_but_no_other_large_files(pack: Path, repository: Path) -> None:
    archived = files_in(pack)
    folders = {"demo", "locales", "nodes", "unlearn_core", "web", "workflows"}
    files = {"LICENSE", "README.md", "__init__.py", "pyproject.toml", "requirements.txt"}
    assert {name.partition("/")[0] for name in archived} == folders | files
    assert {name.split("/")[1] for name in archived if name.startswith("demo/")} == {"models"}
    for folder in ("demo/models", "locales", "web", "workflows"):
        whole = files_in(repository / folder)
        assert {name for name in archived if name.startswith(f"{folder}/")} == {
            f"{folder}/{name}" for name in whole
        }
    large = [name for name, file in archived.items() if file.stat().st_size > LARGE]
    assert {name.rpartition("/")[0].split("/")[1] for name in large} == {"models"}


def test_the_registrys_scan_finds_nothing(pack: Path) -> None:
    in_code = {
        name: findings_in_python(file.read_text(encoding="utf-8"), name in MAY_DOWNLOAD)
        for name, file in files_in(pack, ".py").items()
    }
    assert {name: findings for name, findings in in_code.items() if findings} == {}
    assert in_code.keys() >= MAY_DOWNLOAD
    pages = files_in(pack, ".js", ".css").items()
    in_pages = {name: findings_in_page(file.read_text(encoding="utf-8")) for name, file in pages}
    assert {name: findings for name, findings in in_pages.items() if findings} == {}
    assert in_pages


@pytest.mark.parametrize(
    "source",
    [
        "def f():\n    import subprocess as s",
        "from os import path\nimport os\nos.popen('x')",
        "import torch\ntorch.load('x')",
        "import urllib.request",
        "from aiohttp import ClientSession",
        "import aiohttp",
        "eval('1')",
        "from huggingface_hub import hf_hub_download",
        "asyncio.create_subprocess_exec('x')",
    ],
)
def test_the_scan_finds(source: str) -> None:
    assert findings_in_python(source)


def test_the_scan_accepts_harmless_code() -> None:
    source = (
        "from urllib.parse import quote\nfrom aiohttp import web\nmodel.eval()\nre.compile('x')"
    )
    assert findings_in_python(source) == []
    assert findings_in_python("import huggingface_hub", network=True) == []
    assert findings_in_python("import subprocess", network=True)


def test_the_scan_finds_other_hosts_in_a_page() -> None:
    assert findings_in_page('fetch("https://example.org/x")')
    assert findings_in_page("fetch(`//${host}/x`)")
    assert findings_in_page('a { background: url("https://example.org/x.png") }')
    assert findings_in_page('const NS = "http://www.w3.org/2000/svg";') == []
    assert findings_in_page('api.fetchApi("/unlearn/x"); // why') == []


def test_comfy_cli_finds_it_valid(comfy: ComfyCli, pack: Path) -> None:
    result = comfy("node", "validate", cwd=pack)
    assert result.returncode == 0, result.stdout
    assert "error" not in result.stdout.lower(), result.stdout
    assert "warning" not in result.stdout.lower(), result.stdout


def required(text: str) -> list[str]:
    return [line for line in text.splitlines() if line and not line.startswith("#")]


def names(lines: list[str]) -> set[str]:
    return {match[0].lower().replace("_", "-") for match in map(NAME.match, lines) if match}


def test_it_requires_nothing_that_comes_with_comfyui(comfyui: Path, pack: Path) -> None:
    ours = required((pack / "requirements.txt").read_text(encoding="utf-8"))
    theirs = required((comfyui / "requirements.txt").read_text(encoding="utf-8"))
    assert names(ours)
    assert names(ours) & names(theirs) == set()


def test_the_registry_shows_what_the_manager_installs(pack: Path) -> None:
    configuration = extract_node_configuration(str(pack / "pyproject.toml"))
    assert configuration is not None
    installed = required((pack / "requirements.txt").read_text(encoding="utf-8"))
    assert configuration.project.dependencies == installed


def test_help_and_templates_are_served(published: LiveServer, pack: Path) -> None:
    for page in (PACK / "web" / "docs").rglob("*.md"):
        path = page.relative_to(PACK / "web").as_posix()
        with urlopen(f"{published.url}/extensions/{PACK_FOLDER}/{path}", timeout=60) as answer:
            assert answer.read() == page.read_bytes()
    templates = published.get("/api/workflow_templates")[PACK_FOLDER]
    assert set(templates) == {path.stem for path in WORKFLOWS}
    assert published.get("/i18n")["zh"]["nodeDefs"]


def test_the_demo_runs_from_it(published: LiveServer) -> None:
    info = published.object_info()
    assert info["UnlearnLoadModel"]["python_module"].endswith(PACK_FOLDER)
    run = published.run(as_prompt(with_widgets(read(DEMO), QUICK, info), info))
    assert run.status == "success", run.error
    assert list((published.base / "output").rglob("*.html"))
