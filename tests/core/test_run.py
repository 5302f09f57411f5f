"""run.py: the choice of a Python, the pins that go with a ComfyUI, and the lines of its errors.

pip itself runs here, on wheels of a few bytes that the tests make.
"""

from __future__ import annotations

import os
import subprocess
import sys
import zipfile
from functools import partial
from pathlib import Path

import pytest
import tomlkit

import run
from interpreter import (
    PINS,
    ConflictError,
    Interpreter,
    SetupError,
    candidates_beside,
    install,
    keep_everything,
    keep_pins,
    keep_torch,
    name_of,
    pins_beside,
    pip_error,
)

ROOT = Path(__file__).resolve().parents[2]
OLD_COMFYUI = ["comfyui-frontend-package==1.32.9", "torch", "torchaudio", "SQLAlchemy"]
NEW_COMFYUI = [
    "comfyui-frontend-package==1.49.6",
    "comfyui-workflow-templates==0.11.44",
    "torch",
    "torchaudio",
    "comfy-kitchen==0.2.31",
    "#non essential dependencies:",
    "kornia>=0.7.1",
]
PINNED_TORCH = next(pin for pin in PINS if name_of(pin) == "torch")


def write_wheel(folder: Path, name: str, version: str, *needs: str) -> None:
    """A wheel of one empty module."""
    info = f"{name}-{version}.dist-info"
    lines = ["Metadata-Version: 2.1", f"Name: {name}", f"Version: {version}"]
    metadata = "\n".join([*lines, *(f"Requires-Dist: {need}" for need in needs)])
    files = {
        f"{name}.py": "",
        f"{info}/METADATA": metadata,
        f"{info}/WHEEL": "Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any",
        f"{info}/RECORD": "",
    }
    with zipfile.ZipFile(folder / f"{name}-{version}-py3-none-any.whl", "w") as wheel:
        for path, text in files.items():
            wheel.writestr(path, text)


@pytest.fixture(scope="module")
def wheels(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("wheels")
    write_wheel(folder, "torch", PINNED_TORCH.partition("==")[2])
    for version in ("1.0", "2.0"):
        write_wheel(folder, "paint", version)
        write_wheel(folder, "brush", version, "torch", f"paint>={version}")
    return folder


@pytest.fixture(scope="module")
def empty_venv(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("python") / ".venv"
    subprocess.run([sys.executable, "-m", "venv", str(folder)], check=True)
    return folder


@pytest.fixture
def python(empty_venv: Path, wheels: Path, monkeypatch: pytest.MonkeyPatch) -> Interpreter:
    """A virtual environment with nothing in it, and only our wheels to be had."""
    path = empty_venv / ("Scripts/python.exe" if sys.platform == "win32" else "bin/python")
    remove = [str(path), "-m", "pip", "uninstall", "-q", "-y", "torch", "paint", "brush"]
    subprocess.run(remove, check=True, capture_output=True)
    for name in ("VIRTUAL_ENV", "CONDA_PREFIX"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("PIP_CONFIG_FILE", os.devnull)
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv("PIP_FIND_LINKS", str(wheels))
    python = Interpreter(path)
    (python.packages / "unlearn-run.json").unlink(missing_ok=True)
    return python


def versions(python: Interpreter) -> dict[str, str]:
    return {name: Interpreter(python.path).installed.get(name, "") for name in ("paint", "brush")}


def test_torch_comes_first_and_a_second_run_asks_pip_nothing(python: Interpreter) -> None:
    assert install(python, ["brush"], keep_torch)
    assert versions(python) == {"paint": "2.0", "brush": "2.0"}
    assert not install(Interpreter(python.path), ["brush"], keep_torch)


def test_what_is_there_is_kept(python: Interpreter) -> None:
    install(python, ["paint==1.0"], keep_torch)
    theirs = Interpreter(python.path)
    install(theirs, ["brush"], keep_everything)
    assert versions(python) == {"paint": "1.0", "brush": "1.0"}
    assert not install(Interpreter(python.path), ["brush"], keep_everything)


def test_what_is_there_and_does_not_fit_is_an_error_and_stays(python: Interpreter) -> None:
    install(python, ["paint==1.0"], keep_torch)
    with pytest.raises(ConflictError):
        install(Interpreter(python.path), ["brush==2.0"], keep_everything)
    assert versions(python) == {"paint": "1.0", "brush": ""}


def test_pins_that_do_not_fit_are_given_up(python: Interpreter) -> None:
    ways = [partial(keep_pins, pins=[PINNED_TORCH, "paint==1.0"]), keep_torch]
    install(python, ["brush"], *ways)
    assert versions(python)["brush"] == "1.0"
    install(Interpreter(python.path), ["brush==2.0"], *ways)
    assert versions(python) == {"paint": "2.0", "brush": "2.0"}
    assert not install(Interpreter(python.path), ["brush==2.0"], *ways)


def test_no_network_is_told_from_a_conflict(
    python: Interpreter, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("PIP_NO_INDEX")
    monkeypatch.setenv("PIP_INDEX_URL", "http://127.0.0.1:9/simple")
    monkeypatch.setenv("PIP_RETRIES", "1")
    with pytest.raises(SetupError, match="check the network") as caught:
        python.pip_install("nothing-of-this-name")
    assert not isinstance(caught.value, ConflictError)


@pytest.mark.parametrize(
    ("output", "cure"),
    [
        ("WARNING: Retrying (Retry(total=4))\nERROR: ResolutionImpossible: see", "compatible"),
        ("ERROR: No matching distribution found for torch==9", "compatible"),
        ("WARNING: Retrying (Retry(…))\nERROR: No matching distribution found", "the network"),
        ("ERROR: [Errno 28] No space left on device", "the disk is full"),
        ("error: subprocess-exited-with-error", "its last lines"),
    ],
)
def test_the_cure_fits_the_output_of_pip(output: str, cure: str) -> None:
    message = str(pip_error(output))
    assert cure in message
    assert "\n" not in message


def test_own_python_is_taken_where_it_has_what_comfyui_needs(
    python: Interpreter, empty_venv: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    needs = ["torch", "paint", "# non essential", "never-there"]
    assert run.own_python(empty_venv.parent, ["brush"], needs) is None
    assert "it lacks torch, paint, which ComfyUI requires" in capfd.readouterr().out
    install(python, ["paint==1.0"], keep_torch)
    own = run.own_python(empty_venv.parent, ["brush"], needs)
    assert own is not None
    assert versions(own) == {"paint": "1.0", "brush": "1.0"}


def test_own_python_is_left_alone_where_ours_does_not_fit(
    python: Interpreter, empty_venv: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    install(python, ["paint==1.0"], keep_torch)
    assert run.own_python(empty_venv.parent, ["brush==2.0"], ["torch", "paint"]) is None
    assert "compatible package versions" in capfd.readouterr().out
    assert versions(python) == {"paint": "1.0", "brush": ""}


def test_the_likeliest_python_comes_first(tmp_path: Path) -> None:
    comfyui = tmp_path / "ComfyUI"
    executable = "Scripts/python.exe" if sys.platform == "win32" else "bin/python"
    places = [comfyui / "venv", tmp_path / ".venv", tmp_path / "active"]
    for place in places:
        (place / executable).parent.mkdir(parents=True)
        (place / executable).touch()
    active = {"VIRTUAL_ENV": str(tmp_path / "active"), "CONDA_PREFIX": str(tmp_path / "gone")}
    assert candidates_beside(comfyui, active) == [place / executable for place in places]
    assert candidates_beside(comfyui, {}) == [place / executable for place in places[:2]]


def test_a_comfyui_with_our_pins_has_our_venv(tmp_path: Path) -> None:
    assert pins_beside(PINS, OLD_COMFYUI) == PINS
    assert run.venv_for(tmp_path, OLD_COMFYUI) == run.VENV


def test_a_newer_comfyui_has_its_own_pins_and_a_venv_apart(tmp_path: Path) -> None:
    left = {name_of(pin) for pin in pins_beside(PINS, NEW_COMFYUI)}
    gone = {name_of(pin) for pin in PINS} - left
    assert "comfyui-frontend-package" in gone
    assert {"comfyui-workflow-templates", "comfyui-workflow-templates-core"} <= gone
    assert all(name is not None and name.startswith("comfyui-") for name in gone)
    assert {"torch", "numpy", "comfyui-embedded-docs"} <= left
    apart = run.venv_for(tmp_path, NEW_COMFYUI)
    assert apart.parent == run.COMFYUI.parent
    assert apart != run.venv_for(tmp_path / "another", NEW_COMFYUI)


@pytest.mark.parametrize(
    ("line", "name"),
    [
        ("Open_CLIP.torch>=3.0", "open-clip-torch"),
        ("pyright[nodejs]", "pyright"),
        ("  numpy>=1.25.0 # why", "numpy"),
        ("#non essential dependencies:", None),
        ("--extra-index-url x", None),
        ("", None),
    ],
)
def test_the_name_in_a_line(line: str, name: str | None) -> None:
    assert name_of(line) == name


def test_the_command_line_gets_what_pyproject_says() -> None:
    project = tomlkit.parse((ROOT / "pyproject.toml").read_text("utf-8")).unwrap()["project"]
    written = [line for line in run.command_line_requirements() if not line.startswith("#")]
    assert written == project["dependencies"] + project["optional-dependencies"]["cli"]


def test_an_unknown_comfyui_is_one_line() -> None:
    environment = {**os.environ, "COMFYUI_PATH": "/nowhere"}
    done = subprocess.run(
        [sys.executable, "run.py", "comfyui"], cwd=ROOT, env=environment, capture_output=True
    )
    assert done.returncode == 2
    (line,) = done.stderr.decode().splitlines()
    assert line.startswith("run.py: COMFYUI_PATH: no main.py in '/nowhere'")
