"""Memory of unlearning, estimated and measured: ``python -m benchmarks.memory``.

It takes a step with each scope on Stable Diffusion 1.5 at 512 px and SDXL at 1024 px, with random
16-bit weights and mixed precision. It prints the estimate that a run makes beforehand beside the
largest amount of memory that tensors occupied in the step, those in main memory included. Text
encoders and autoencoders are not loaded. With the scope ``full`` the networks have half their
width, to fit into 24 GB. On one core of a CPU a row takes minutes to an hour; ``--model`` and
``--scopes`` choose a part, ``--narrow`` and ``--image-size`` smaller networks and pictures. Each
row is a file in ``benchmarks/results/memory``, and a row that has one is not measured again.
``--page`` writes all rows into ``docs/memory.md``. ``--small`` tries the script with small models.

``python -m benchmarks.memory FILE --scope xattn --image-size 512 --batch-size 8`` measures opening
a checkpoint, saving it again, and unlearning steps. Each line of output is from a separate process
on the CPU, and counts all resident memory, including file pages.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, cast

import torch

from benchmarks.gpu_models import (
    FULL_SD_1,
    FULL_SDXL,
    SMALL_SD_1,
    SMALL_SDXL,
    Sizes,
    sd_1,
    sdxl,
)
from benchmarks.pages import DOCS, put_block
from unlearn_core.dataset.rows import PairedRows, Rows, TrainingSets
from unlearn_core.job.console import say
from unlearn_core.models.layers import FULL, SCOPES
from unlearn_core.models.load import load_model
from unlearn_core.models.options import LoadOptions
from unlearn_core.models.protocol import ModelHandle
from unlearn_core.prompts.concept import ForgetConcept
from unlearn_core.prompts.diversify import diversify
from unlearn_core.prompts.pairs import PromptPairs
from unlearn_core.saving.single_file import save_single_file
from unlearn_core.unlearning.auto import resolved
from unlearn_core.unlearning.estimate import sizes
from unlearn_core.unlearning.methods import begin
from unlearn_core.unlearning.plan import Plan
from unlearn_core.unlearning.profile import LiveBytes
from unlearn_core.unlearning.results import UnlearnedModel
from unlearn_core.unlearning.settings import UnlearnSettings

GIB = 2**30
OPEN, SAVE, TRAIN = "open", "open and save", "open and unlearn"
GB = 10**9
MODELS = {"SD 1.5": (sd_1, FULL_SD_1, SMALL_SD_1), "SDXL": (sdxl, FULL_SDXL, SMALL_SDXL)}
RESULTS = Path(__file__).parent / "results" / "memory"
PAGE, BLOCK = DOCS / "memory.md", "estimate and peak"
HEADER = """| model | scope | px | estimate | measured peak | difference |
| --- | --- | --- | --- | --- | --- |"""
COLUMNS = f"{'model':<8}{'scope':<8}{'width':>7}{'estimate GB':>13}{'peak GB':>9}{'error':>11}"
UNEDITED: dict[str, Any] = {"prompt_protection": 0.0}  # needs real text encoders
STEPS = 2  # the first one is measured; after the last, the damage would be measured as well


@dataclass(frozen=True)
class Measurement:
    """A step of one scope.

    Attributes:
        width: of the network, relative to the published model.
        micro_batch: pictures at a time.
        estimate: bytes of each part.
        peak: bytes of the tensors of the step and of the model.
    """

    model: str
    scope: str
    width: float
    image_size: int
    batch_size: int
    micro_batch: int
    torch: str
    estimate: dict[str, int]
    peak: int

    @property
    def estimated(self) -> int:
        return sum(self.estimate.values())

    @property
    def error(self) -> float:
        """Of the estimate, relative."""
        return self.estimated / self.peak - 1

    @property
    def row(self) -> str:
        """The row of a table in Markdown."""
        width = "" if self.width == 1 else f", {self.width:g} × the width"
        cells = (
            f"{self.model}{width}",
            f"`{self.scope}`",
            f"{self.image_size}",
            f"{self.estimated / GB:.1f} GB",
            f"{self.peak / GB:.1f} GB",
            f"{100 * self.error:+.1f} %".replace("-", "−"),
        )
        return f"| {' | '.join(cells)} |"

    def __str__(self) -> str:
        figures = f"{self.estimated / GB:>13.2f}{self.peak / GB:>9.2f}{100 * self.error:>+9.1f} %"
        return f"{self.model:<8}{self.scope:<8}{self.width:>7.2g}{figures}"


def narrowed(sizes: Sizes) -> Sizes:
    """A denoiser of half the width, with heads of the same size in SDXL; SD 1.5 always has 8."""
    settings = dict(sizes.denoiser)
    for name in ("block_out_channels", "attention_head_dim"):
        if isinstance(settings[name], tuple):
            settings[name] = tuple(max(1, number // 2) for number in settings[name])
    return replace(sizes, denoiser=settings)


def pairs() -> PromptPairs:
    concept = ForgetConcept("x", replacements=("y",))
    words = {"a": ("a", "b")}
    return diversify(concept, ["{a} {concept}"], words, train_count=1, test_count=1)


def save(model: ModelHandle, room: Path) -> None:
    save_single_file(
        UnlearnedModel(model, model, pairs(), UnlearnSettings(), ()), room / "saved.safetensors"
    )


def training_sets(model: ModelHandle) -> TrainingSets:
    """One picture of noise for each kind of prompt; noise needs the same memory as pictures."""
    forget, retain = (
        Rows(torch.randn(1, *model.latent_shape), model.encode_prompts([prompt]).to("cpu"))
        for prompt in ("a x", "a y")
    )
    paired = PairedRows(forget, retain, torch.zeros(1, dtype=torch.long))
    return TrainingSets(pairs(), (paired,), (retain,))


def train(model: ModelHandle, scope: str, batch_size: int) -> None:
    settings = UnlearnSettings(scope=scope, batch_size=batch_size, steps=STEPS, warm_start=False)
    list(begin(model, training_sets(model), settings))


def measure(
    name: str, model: ModelHandle, scope: str, width: float, plan: Plan, batch_size: int
) -> Measurement:
    """Estimate and take a step."""
    settings = UnlearnSettings(scope=scope, batch_size=batch_size)
    settings = replace(resolved(settings, model), steps=STEPS, warm_start=False, **UNEDITED)
    parts = sizes(model, settings, "a x").parts(plan, batch_size)
    with LiveBytes() as live:
        next(iter(begin(model, training_sets(model), settings, plan=plan)))
    return Measurement(
        name,
        scope,
        width,
        model.info.image_size,
        batch_size,
        cast(int, plan.micro_batch),
        torch.__version__,
        parts,
        parts["model"] + live.peak,
    )


def read(file: Path) -> Measurement:
    return Measurement(**json.loads(file.read_text(encoding="utf-8")))


def table() -> str:
    """The committed rows, in Markdown."""
    rows = [read(file) for file in RESULTS.glob("*.json")]
    rows.sort(key=lambda row: (row.model, -row.image_size, SCOPES.index(row.scope)))
    return "\n".join((HEADER, *(row.row for row in rows)))


def compare(options: argparse.Namespace) -> None:
    """Print the table of estimates and measurements; takes those that have a record from there."""
    say(f"{options.batch_size} pictures per step, {options.micro_batch} at a time\n{COLUMNS}")
    options.results.mkdir(parents=True, exist_ok=True)
    for name, (build, full, small) in MODELS.items():
        for scope in options.scopes if options.model in (None, name) else ():
            whole = small if options.small else full
            edge = options.image_size or whole.image_size
            label = f"{name} {scope}{' small' if options.small else ''}"
            label += f" {edge} px" if edge != whole.image_size else ""
            label += " narrow" if options.narrow else ""
            file = options.results / f"{label.lower().replace(' ', '-')}.json"
            if file.is_file():
                say(str(read(file)))
                continue
            width = 0.5 if options.narrow or (scope == FULL and not options.small) else 1.0
            whole = replace(whole, image_size=edge)
            model = build(whole if width == 1 else narrowed(whole), torch.device("cpu"))
            plan = Plan(options.micro_batch)
            row = measure(name, model, scope, width, plan, options.batch_size)
            file.write_text(json.dumps(asdict(row), indent=2) + "\n", encoding="utf-8")
            say(str(row))


def work(options: argparse.Namespace) -> None:
    """The work of one of the processes."""
    loading = LoadOptions(precision=options.precision, image_size=options.image_size)
    model = load_model(options.file, options=loading)
    if options.work == SAVE:
        with tempfile.TemporaryDirectory(dir=options.file.parent) as room:
            save(model, Path(room))
    elif options.work == TRAIN:
        train(model, options.scope, options.batch_size)


def peak(*arguments: str) -> int:
    """Largest resident size, in bytes, of a process with these arguments."""
    process = subprocess.Popen([sys.executable, "-m", "benchmarks.memory", *arguments])
    _, status, usage = os.wait4(process.pid, 0)
    if status:
        raise SystemExit(os.waitstatus_to_exitcode(status))
    return usage.ru_maxrss * (1 if sys.platform == "darwin" else 1024)


def main(arguments: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.memory", description=__doc__)
    parser.add_argument("file", type=Path, nargs="?", help="a checkpoint; none: random weights")
    parser.add_argument("--model", choices=MODELS, help="only this one of the random models")
    parser.add_argument("--scopes", nargs="+", choices=SCOPES, default=["xattn", "lora", "full"])
    parser.add_argument("--micro-batch", type=int, default=1, help="pictures at a time")
    parser.add_argument("--narrow", action="store_true", help="half the width with every scope")
    parser.add_argument("--small", action="store_true", help="small random models")
    parser.add_argument("--page", action="store_true", help="only write the table into the page")
    parser.add_argument("--results", type=Path, default=RESULTS, help="the folder of the records")
    parser.add_argument("--scope", choices=SCOPES, help="unlearn as well, with this scope")
    parser.add_argument("--image-size", type=int, default=0, help="in pixels, 0 is the model's own")
    parser.add_argument("--batch-size", type=int, default=1, help="pictures of each kind in a step")
    parser.add_argument("--precision", choices=("mixed", "fp32"), help="measure only this one")
    parser.add_argument("--work", choices=(OPEN, SAVE, TRAIN), help=argparse.SUPPRESS)
    options = parser.parse_args(arguments)
    if options.page:
        put_block(PAGE, BLOCK, table())
        return
    if options.file is None:
        compare(options)
        return
    if options.work:
        work(options)
        return
    size = options.file.stat().st_size
    say(f"{options.file.name}: {size / GIB:.2f} GiB on disk")
    common = ["--image-size", str(options.image_size), "--batch-size", str(options.batch_size)]
    if options.scope:
        common += ["--scope", options.scope]
    for precision in (options.precision,) if options.precision else ("mixed", "fp32"):
        for part in (OPEN, SAVE, TRAIN) if options.scope else (OPEN, SAVE):
            own = ["--precision", precision, "--work", part]
            size_used = peak(str(options.file), *common, *own)
            figures = f"{size_used / GIB:6.2f} GiB, {size_used / size:.2f} × the file"
            say(f"{precision:<6}{part:<17}{figures}")


if __name__ == "__main__":
    main()
