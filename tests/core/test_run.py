"""run.py: the choice of a Python, the pins for a ComfyUI, and its error messages.

The tests run pip itself, on their own wheels of a few bytes.
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
    """Write a wheel with one empty module."""
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
    """An empty virtual environment, with only our wheels available."""
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


def test_a_second_run_does_not_call_pip(python: Interpreter) -> None:
    assert install(python, ["brush"], keep_torch)
    assert versions(python) == {"paint": "2.0", "brush": "2.0"}
    assert not install(Interpreter(python.path), ["brush"], keep_torch)


def test_installed_versions_stay(python: Interpreter) -> None:
    install(python, ["paint==1.0"], keep_torch)
    install(Interpreter(python.path), ["brush"], keep_everything)
    assert versions(python) == {"paint": "1.0", "brush": "1.0"}
    assert not install(Interpreter(python.path), ["brush"], keep_everything)


def test_a_conflict_with_an_installed_version_is_an_error(python: Interpreter) -> None:
    install(python, ["paint==1.0"], keep_torch)
    with pytest.raises(ConflictError):
        install(Interpreter(python.path), ["brush==2.0"], keep_everything)
    assert versions(python) == {"paint": "1.0", "brush": ""}


def test_pins_in_conflict_are_dropped(python: Interpreter) -> None:
    ways = [partial(keep_pins, pins=[PINNED_TORCH, "paint==1.0"]), keep_torch]
    install(python, ["brush"], *ways)
    assert versions(python)["brush"] == "1.0"
    install(Interpreter(python.path), ["brush==2.0"], *ways)
    assert versions(python) == {"paint": "2.0", "brush": "2.0"}
    assert not install(Interpreter(python.path), ["brush==2.0"], *ways)


def test_a_missing_network_is_not_reported_as_a_conflict(
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
def test_the_error_suggests_a_cure_for_the_output_of_pip(output: str, cure: str) -> None:
    message = str(pip_error(output))
    assert cure in message
    assert "\n" not in message


def test_own_python_is_used_if_it_has_the_requirements_of_comfyui(
    python: Interpreter, empty_venv: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    needs = ["torch", "paint", "# non essential", "never-there"]
    assert run.own_python(empty_venv.parent, ["brush"], needs) is None
    assert "it lacks torch, paint, which ComfyUI requires" in capfd.readouterr().out
    install(python, ["paint==1.0"], keep_torch)
    own = run.own_python(empty_venv.parent, ["brush"], needs)
    assert own is not None
    assert versions(own) == {"paint": "1.0", "brush": "1.0"}


def test_own_python_stays_unchanged_if_our_requirements_conflict(
    python: Interpreter, empty_venv: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    install(python, ["paint==1.0"], keep_torch)
    assert run.own_python(empty_venv.parent, ["brush==2.0"], ["torch", "paint"]) is None
    assert "compatible package versions" in capfd.readouterr().out
    assert versions(python) == {"paint": "1.0", "brush": ""}


def test_the_most_likely_python_comes_first(tmp_path: Path) -> None:
    comfyui = tmp_path / "ComfyUI"
    executable = "Scripts/python.exe" if sys.platform == "win32" else "bin/python"
    folders = [comfyui / "venv", tmp_path / ".venv", tmp_path / "active"]
    for folder in folders:
        (folder / executable).parent.mkdir(parents=True)
        (folder / executable).touch()
    active = {"VIRTUAL_ENV": str(tmp_path / "active"), "CONDA_PREFIX": str(tmp_path / "gone")}
    assert candidates_beside(comfyui, active) == [folder / executable for folder in folders]
    assert candidates_beside(comfyui, {}) == [folder / executable for folder in folders[:2]]


def test_a_comfyui_with_our_pins_uses_our_venv(tmp_path: Path) -> None:
    assert pins_beside(PINS, OLD_COMFYUI) == PINS
    assert run.venv_for(tmp_path, OLD_COMFYUI) == run.VENV


def test_a_newer_comfyui_has_its_own_pins_and_venv(tmp_path: Path) -> None:
    remaining = {name_of(pin) for pin in pins_beside(PINS, NEW_COMFYUI)}
    dropped = {name_of(pin) for pin in PINS} - remaining
    assert "comfyui-frontend-package" in dropped
    assert {"comfyui-workflow-templates", "comfyui-workflow-templates-core"} <= dropped
    assert all(name is not None and name.startswith("comfyui-") for name in dropped)
    assert {"torch", "numpy", "comfyui-embedded-docs"} <= remaining
    venv = run.venv_for(tmp_path, NEW_COMFYUI)
    assert venv.parent == run.COMFYUI.parent
    assert venv != run.venv_for(tmp_path / "another", NEW_COMFYUI)


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
def test_the_package_name_in_a_line(line: str, name: str | None) -> None:
    assert name_of(line) == name


def test_the_command_line_gets_the_requirements_in_pyproject() -> None:
    project = tomlkit.parse((ROOT / "pyproject.toml").read_text("utf-8")).unwrap()["project"]
    requirements = [line for line in run.command_line_requirements() if not line.startswith("#")]
    assert requirements == project["dependencies"] + project["optional-dependencies"]["cli"]


def test_a_wrong_comfyui_path_is_reported_in_one_line() -> None:
    environment = {**os.environ, "COMFYUI_PATH": "/nowhere"}
    done = subprocess.run(
        [sys.executable, "run.py", "comfyui"], cwd=ROOT, env=environment, capture_output=True
    )
    assert done.returncode == 2
    (line,) = done.stderr.decode().splitlines()
    assert line.startswith("run.py: COMFYUI_PATH: no main.py in '/nowhere'")
