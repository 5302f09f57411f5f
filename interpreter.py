"""The Python interpreter that `run.py` installs into and then runs. Standard library only."""

from __future__ import annotations

import hashlib
import json
import os
import re
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import NoReturn

ROOT = Path(__file__).resolve().parent
OLDEST_PYTHON = (3, 10)
PINNED_PYTHON = (3, 11)  # older Pythons cannot install the versions in constraints.txt
_CONSTRAINTS = (ROOT / "constraints.txt").read_text("utf-8").splitlines()
PINS = [line for line in _CONSTRAINTS if not line.startswith("#")]
TORCH_FAMILY = ("torch", "torchvision", "torchaudio")

NO_NETWORK = re.compile(r"Retrying \(|Connection|timed out|name resolution|SSLError|ProxyError")


class SetupError(Exception):
    """An error that the user can fix; the message is the only line shown."""


class ConflictError(SetupError):
    """No versions of the packages are compatible."""


class Interpreter:
    """A Python interpreter and its installed packages.

    Attributes:
        packages: its site-packages folder.
        installed: version of every installed package, by its normalized name.
    """

    _PROBE = """
import importlib.metadata as m, importlib.util, json, sys, sysconfig
packages = [(d.metadata["Name"], d.version) for d in m.distributions()]
print(json.dumps([sys.version_info[:2], sysconfig.get_path("purelib"), packages,
                  importlib.util.find_spec("pip") is not None]))
"""

    def __init__(self, path: Path) -> None:
        self.path = path
        try:
            probe = subprocess.run(
                [str(path), "-c", self._PROBE], capture_output=True, text=True, check=True
            )
        except (OSError, subprocess.CalledProcessError) as error:
            raise SetupError(f"{path} does not run as a Python interpreter") from error
        version, folder, packages, self.has_pip = json.loads(probe.stdout)
        self.version: tuple[int, int] = (version[0], version[1])
        self.packages = Path(folder)
        # Reversed, because Python imports the first on its path, and here the last one wins.
        self.installed = {normalized(name): version for name, version in reversed(packages) if name}
        require_python(self.version, str(path))

    @property
    def torch(self) -> str | None:
        return self.installed.get("torch")

    def imports(self, *modules: str) -> bool:
        command = [str(self.path), "-c", f"import {', '.join(modules)}"]
        return subprocess.run(command, capture_output=True).returncode == 0

    def lacks(self, requirements: Sequence[str]) -> list[str]:
        """Required packages that are not installed, or (torch family) cannot be imported."""
        names = [name for name in map(name_of, requirements) if name is not None]
        family = [name for name in names if name in TORCH_FAMILY]
        others = [name for name in names if name not in family and name not in self.installed]
        if not family or self.imports(*family):  # in one process, as each import takes seconds
            return others
        return [name for name in family if not self.imports(name)] + others

    def run(self, *args: str) -> int:
        return subprocess.call([str(self.path), *args], cwd=ROOT)

    def become(self, *args: str, cwd: Path = ROOT) -> NoReturn:
        """Replace this process by the interpreter, so that Ctrl+C and signals reach the program
        itself."""
        command = [str(self.path), *args]
        sys.stdout.flush()
        if os.name == "nt":  # exec on Windows returns to the shell at once
            try:
                sys.exit(subprocess.call(command, cwd=cwd))
            except KeyboardInterrupt:
                sys.exit(130)
        os.chdir(cwd)
        os.execv(command[0], command)

    def pip_install(self, *args: str) -> None:
        if not self.has_pip:
            raise SetupError(f"{self.path} has no pip; run `{self.path} -m ensurepip` first")
        quiet = [] if sys.stdout.isatty() else ["-q"]
        # Python compiles modules on import; compiling all of them takes another minute.
        options = ["--disable-pip-version-check", "--no-compile", *quiet]
        command = [str(self.path), "-m", "pip", "install", *options, *args]
        output: list[str] = []
        with subprocess.Popen(
            command, cwd=ROOT, stderr=subprocess.PIPE, encoding="utf-8", errors="replace"
        ) as pip:
            assert pip.stderr is not None
            for line in pip.stderr:
                sys.stderr.write(line)
                output.append(line)
        if pip.returncode != 0:
            raise pip_error("".join(output))


def pip_error(output: str) -> SetupError:
    """The error for pip's output, with a cure."""
    conflict = "ResolutionImpossible" in output
    if NO_NETWORK.search(output) and not conflict:  # the output may contain both
        return SetupError("pip could not reach its index; check the network, then run this again")
    if "No space left" in output:
        return SetupError("the disk is full; free some space, then run this again")
    if conflict or "No matching distribution" in output:
        return ConflictError(
            "pip found no compatible package versions, see its messages above; update ComfyUI and "
            "this pack, or pass --python with an interpreter that has ComfyUI's requirements"
        )
    return SetupError("pip failed; fix the problem in its last lines above, then run this again")


def require_python(version: tuple[int, int], name: str) -> None:
    if version < OLDEST_PYTHON:
        raise SetupError(f"{name} is Python {version[0]}.{version[1]}, but 3.10 or newer is needed")


def normalized(name: str) -> str:
    """The name in pip's canonical form: `Open_CLIP.torch` becomes `open-clip-torch`."""
    return re.sub(r"[-_.]+", "-", name).lower()


def name_of(requirement: str) -> str | None:
    """The normalized name in a line of a requirements file; None for a comment or an option."""
    match = re.match(r"\s*([A-Za-z0-9][\w.-]*)", requirement)
    return None if match is None else normalized(match[1])


def executable_in(folder: Path) -> Path | None:
    """The interpreter of a venv, a conda environment or Windows' portable Python."""
    names = ("Scripts/python.exe", "python.exe") if os.name == "nt" else ("bin/python",)
    return next((folder / name for name in names if (folder / name).is_file()), None)


def candidates_beside(comfyui: Path, environment: Mapping[str, str]) -> list[Path]:
    """Interpreters that may be ComfyUI's own, the likeliest first."""
    names = (".venv", "venv", "python_embeded")  # the last is the portable ComfyUI's spelling
    folders = [place / name for place in (comfyui, comfyui.parent) for name in names]
    active = (environment.get(name) for name in ("VIRTUAL_ENV", "CONDA_PREFIX"))
    folders += [Path(folder) for folder in active if folder]
    paths = (executable_in(folder) for folder in folders)
    return list(dict.fromkeys(path for path in paths if path is not None))


def make_venv(folder: Path) -> Interpreter:
    if executable_in(folder) is None:
        print(f"Creating {folder.relative_to(ROOT)} …", flush=True)
        process = subprocess.run([sys.executable, "-m", "venv", str(folder)], capture_output=True)
        if process.returncode != 0:
            shutil.rmtree(folder, ignore_errors=True)  # else it would pass for a complete one
            raise SetupError(
                f"could not create {folder.relative_to(ROOT)}; install Python's venv module (on "
                "Debian and Ubuntu `apt install python3-venv`), or pass --python"
            )
    path = executable_in(folder)
    assert path is not None
    return Interpreter(path)


# The lines of a constraints file for an installation into an interpreter.
Constraints = Callable[[Interpreter], list[str]]


def keep_torch(python: Interpreter) -> list[str]:
    return [f"torch=={python.torch}"]


def keep_everything(python: Interpreter) -> list[str]:
    return [f"{name}=={version}" for name, version in sorted(python.installed.items())]


def keep_pins(python: Interpreter, pins: Sequence[str]) -> list[str]:
    """The pins that are compatible with the installed torch, which must never change."""
    installed = (python.torch or "").partition("+")[0]
    if python.version < PINNED_PYTHON:
        pins = []
    family = TORCH_FAMILY if f"torch=={installed}" not in pins else ("torch",)
    return [*keep_torch(python), *(pin for pin in pins if name_of(pin) not in family)]


def pins_beside(pins: Sequence[str], requirements: Sequence[str]) -> list[str]:
    """The pins, except for packages that the requirements pin to another version, and for their
    parts: `comfyui-workflow-templates-core` belongs to `comfyui-workflow-templates`."""
    ours = {name_of(pin): pin.partition("==")[2] for pin in pins}
    exact = [re.match(r"\s*([\w.-]+)\s*==\s*([\w.!+]+)", line) for line in requirements]
    theirs = {normalized(match[1]): match[2] for match in exact if match is not None}
    other = [name for name, version in theirs.items() if ours.get(name, version) != version]

    def is_part_of(pin: str, name: str) -> bool:
        return f"{name_of(pin)}-".startswith(f"{name}-")

    return [pin for pin in pins if not any(is_part_of(pin, name) for name in other)]


def install(python: Interpreter, requirements: Sequence[str], *ways: Constraints) -> bool:
    """Install missing packages; returns immediately if nothing changed since the last time.

    Args:
        ways: constraints for the installation; each is tried if those before it allow no
            compatible versions.

    Returns:
        Whether pip was run.

    Raises:
        ConflictError: all ways fail.
    """
    stamp = python.packages / "unlearn-run.json"
    digests: list[str] = json.loads(stamp.read_text("utf-8")) if stamp.exists() else []
    if python.torch and any(_digest(requirements, way(python)) in digests for way in ways):
        return False

    print("Installing packages (a few minutes the first time) …", flush=True)
    if python.torch is None:
        # Alone and first, so that the constraints below contain the pinned version.
        python.pip_install(next(pin for pin in PINS if name_of(pin) == "torch"))
        python = Interpreter(python.path)
    way = _install_one_way(python, requirements, *ways)
    after = _digest(requirements, way(Interpreter(python.path)))
    stamp.write_text(json.dumps([*digests, after], indent=1))
    return True


def _install_one_way(
    python: Interpreter, requirements: Sequence[str], way: Constraints, *others: Constraints
) -> Constraints:
    """Install, and return the first way for which pip finds compatible versions."""
    with tempfile.TemporaryDirectory() as folder:
        packages, constraints = Path(folder, "requirements.txt"), Path(folder, "constraints.txt")
        packages.write_text("\n".join(requirements), "utf-8")
        constraints.write_text("\n".join(way(python)), "utf-8")
        try:
            python.pip_install("-c", str(constraints), "-r", str(packages))
            return way
        except ConflictError:
            if not others:
                raise
    print("The tested versions do not fit this Python; pip will choose others …", flush=True)
    return _install_one_way(python, requirements, *others)


def _digest(requirements: Sequence[str], constraints: Sequence[str]) -> str:
    return hashlib.sha256(json.dumps([requirements, constraints]).encode()).hexdigest()
