"""Dependencies of the core, checked in its source and in a fresh interpreter."""

from __future__ import annotations

import ast
import doctest
import subprocess
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path

import pytest

import unlearn_core
from unlearn_core.foundation.version import VERSION

CORE = Path(unlearn_core.__file__).parent
ROOT = CORE.parent
FILES = sorted(CORE.rglob("*.py"))
COMMAND_LINES = {"cli.py", "console.py"}

COMFYUI = {"comfy", "comfy_api", "comfy_extras", "comfy_execution", "folder_paths", "server"}
OUTSIDE = COMFYUI | {
    "nodes",
    "web",
    "execution",
    "latent_preview",
    "aiohttp",
    "tqdm",
    "demo",
    "tests",
}
CALLS = {"print", "eval", "exec", "compile", "__import__", "input", "breakpoint"}
TEST_ONLY = (
    "sklearn",
    "torchjd",
    "quadprog",
    "pytest",
    "hypothesis",
    "playwright",
    "nudenet",
    "matplotlib",
)
HEAVY = ("diffusers", "transformers", "open_clip", "safetensors")

# Each room imports only rooms above it in this list.
LAYERS = (
    "foundation",
    "models",
    "prompts",
    "dataset",
    "unlearning",
    "judging",
    "evaluation",
    "reporting",
    "saving",
    "job",
)
PACK_LAYERS = ("unlearn_core", "nodes/host", "nodes/native", "nodes/inputs", "nodes/page", "nodes")


def name_of(file: Path) -> str:
    return str(file.relative_to(ROOT))


def imports(tree: ast.AST) -> Iterator[tuple[int, str]]:
    """(level, module) of every import, including those inside functions."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from ((0, alias.name) for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            yield node.level, node.module or ""


def calls(tree: ast.AST) -> Iterator[str]:
    for node in ast.walk(tree):
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Name):
            yield node.func.id


@pytest.mark.parametrize("file", FILES, ids=name_of)
def test_the_core_imports_nothing_outside(file: Path) -> None:
    allowed = {"tqdm"} if file.name in COMMAND_LINES else set()
    depth = len(file.relative_to(CORE).parts)
    for level, module in imports(ast.parse(file.read_text(encoding="utf-8"))):
        assert level <= depth, f"{'.' * level}{module} leaves the package"
        if level == 0:
            package = module.split(".")[0]
            assert package not in OUTSIDE - allowed, module
            # ComfyUI loads the pack by its path, where the absolute name does not exist.
            assert package != "unlearn_core", f"write {module} as a relative import"


def imported(file: Path) -> Iterator[str]:
    """The modules of this pack that a file imports, as paths relative to the pack."""
    folder = file.relative_to(ROOT).parent
    for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
        if isinstance(node, ast.ImportFrom) and node.level:
            base = folder if node.level == 1 else folder.parents[node.level - 2]
            module = base.joinpath(*(node.module or "").split("."))
            for alias in node.names:  # a module in a package, or a name in a module
                inner = ROOT / module / f"{alias.name}.py"
                yield (module / alias.name if inner.exists() else module).as_posix()


def layer_of(path: str, layers: Sequence[str]) -> int:
    """Index of the layer of a module; the deepest matching folder decides."""
    matches = [layer for layer in layers if f"{path}/".startswith(f"{layer}/")]
    return layers.index(max(matches, key=len))


def test_each_room_imports_only_those_below_it() -> None:
    rooms = [f"unlearn_core/{name}" for name in LAYERS]
    assert {f.parent.name for f in FILES if f.parent != CORE} == set(LAYERS)
    for file in FILES:
        if file.parent == CORE:  # the public interface
            continue
        own = layer_of(file.relative_to(ROOT).as_posix(), rooms)
        for module in imported(file):
            assert layer_of(module, rooms) <= own, f"{name_of(file)} imports {module}"


def test_the_rooms_of_the_nodes_are_layered_above_the_core() -> None:
    files = sorted((ROOT / "nodes").rglob("*.py"))
    for file in files:
        own = layer_of(file.relative_to(ROOT).as_posix(), PACK_LAYERS)
        for module in imported(file):
            assert layer_of(module, PACK_LAYERS) <= own, f"{name_of(file)} imports {module}"
    flat = [file for file in files if file.parent == ROOT / "nodes"]
    assert all("io.ComfyNode" in file.read_text(encoding="utf-8") for file in flat), (
        "only the node files and their list are directly in nodes/"
    )


def test_there_are_no_circular_imports() -> None:
    sources = [*FILES, *sorted((ROOT / "nodes").rglob("*.py"))]
    arrows = {
        file.relative_to(ROOT).with_suffix("").as_posix(): set(imported(file)) for file in sources
    }
    done: set[str] = set()

    def visit(module: str, path: tuple[str, ...]) -> None:
        assert module not in path, " -> ".join((*path[path.index(module) :], module))
        if module not in done:
            for other in arrows.get(module, ()):
                visit(other, (*path, module))
        done.add(module)

    for module in arrows:
        visit(module, ())


@pytest.mark.parametrize("folder", ["unlearn_core", "nodes", "demo", "benchmarks"])
def test_every_folder_has_a_docstring(folder: str) -> None:
    for init in (ROOT / folder).rglob("__init__.py"):
        assert ast.get_docstring(ast.parse(init.read_text(encoding="utf-8"))), name_of(init)


@pytest.mark.parametrize("file", FILES, ids=name_of)
def test_the_core_neither_prints_nor_evaluates_text(file: Path) -> None:
    allowed = {"print"} if file.name in COMMAND_LINES else set()
    names = set(calls(ast.parse(file.read_text(encoding="utf-8"))))
    assert not names & (CALLS - allowed)


@pytest.mark.parametrize("file", FILES, ids=name_of)
def test_nothing_is_unpickled(file: Path) -> None:
    tree = ast.parse(file.read_text(encoding="utf-8"))
    assert not {"pickle", "dill", "joblib", "shelve", "marshal"} & {m for _, m in imports(tree)}
    for node in ast.walk(tree):
        if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name):
            assert (node.value.id, node.attr) != ("torch", "load")


@pytest.mark.parametrize("file", FILES, ids=name_of)
def test_it_is_python_3_10(file: Path) -> None:
    """The minimum in ``requires-python``; newer names in ``typing`` would break the import."""
    source = file.read_text(encoding="utf-8")
    newer = {"Self", "assert_never", "LiteralString", "Never", "Unpack", "override"}
    for node in ast.walk(ast.parse(source, feature_version=(3, 10))):
        if isinstance(node, ast.ImportFrom) and node.module == "typing":
            assert not newer & {alias.name for alias in node.names}
        if isinstance(node, (ast.Import, ast.ImportFrom)):
            assert "tomllib" not in {alias.name for alias in node.names}


def test_the_checks_above_work() -> None:
    source = "def f():\n    from comfy.utils import x\n    import server\n    print(x, eval('1'))"
    tree = ast.parse(source)
    assert set(imports(tree)) == {(0, "comfy.utils"), (0, "server")}
    assert set(calls(tree)) == {"f", "print", "eval"} - {"f"}
    assert len(FILES) > 10


def import_without(missing: tuple[str, ...], *modules: str) -> None:
    """Import the modules in a new interpreter without the missing packages."""
    # Python itself marks a name that it must not find by None.
    names = ", ".join(modules)
    script = f"import sys; sys.modules.update(dict.fromkeys({missing!r})); import {names}"
    done = subprocess.run(
        [sys.executable, "-c", script], cwd=ROOT, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr


def test_the_light_modules_need_only_torch() -> None:
    light = ("unlearning.rules", "prompts.concept", "prompts.diversify", "unlearning.settings")
    import_without(HEAVY, *(f"unlearn_core.{module}" for module in light))


def test_the_model_libraries_are_imported_only_for_a_model() -> None:
    """Importing them takes seconds, too long for ``--help`` or a start of ComfyUI."""
    libraries = ("accelerate", "diffusers", "huggingface_hub", "matplotlib", "open_clip", "peft")
    import_without((*libraries, "transformers"), "unlearn_core.interface", "unlearn_core.job.cli")


def test_the_demo_needs_no_package_of_the_tests() -> None:
    """``python run.py demo`` installs the pack's requirements and the extra ``cli``."""
    import_without(TEST_ONLY, "demo.erase", "unlearn_core.job.cli")


def test_the_example_in_the_package_runs_and_its_names_exist() -> None:
    outcome = doctest.testmod(unlearn_core)
    assert outcome.attempted > 3
    assert outcome.failed == 0
    assert all(hasattr(unlearn_core, name) for name in unlearn_core.__all__)


def test_the_version_agrees_with_pyproject() -> None:
    line = f'version = "{VERSION}"'
    assert line in (ROOT / "pyproject.toml").read_text(encoding="utf-8").splitlines()
