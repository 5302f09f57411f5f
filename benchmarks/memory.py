"""Memory of unlearning, estimated and measured: ``python -m benchmarks.memory``.

It takes two steps with each scope on Stable Diffusion 1.5 at 512 px and SDXL at 1024 px, with
random 16-bit weights and mixed precision. It prints the estimate that a run makes beforehand beside
the largest amount of memory that tensors occupied in the run. Text encoders and autoencoders are
not loaded. On a CPU this takes hours, and with the scope ``full`` a lot of memory; ``--model`` and
``--scopes`` choose a part. ``--small`` tries the script with small models.

``python -m benchmarks.memory FILE --scope xattn --image-size 512 --batch-size 8`` measures opening
a checkpoint, saving it again, and unlearning steps. Each line of output is from a separate process
on the CPU, and counts all resident memory, including file pages.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import tempfile
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch

from benchmarks.gpu_models import (
    FULL_SD_1,
    FULL_SDXL,
    SMALL_SD_1,
    SMALL_SDXL,
    sd_1,
    sdxl,
)
from unlearn_core.dataset.rows import PairedRows, Rows, TrainingSets
from unlearn_core.job.console import say
from unlearn_core.models.layers import SCOPES
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
COLUMNS = f"{'model':<8}{'scope':<8}{'estimate GB':>11}{'peak GB':>11}{'error':>11}"
UNEDITED: dict[str, Any] = {"prompt_protection": 0.0}  # needs real text encoders
STEPS = 2  # the first creates Adam's moments, so that the second includes them


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


def beside(name: str, model: ModelHandle, scope: str, plan: Plan, batch_size: int) -> str:
    """Estimate and measurement in one line of the table."""
    settings = UnlearnSettings(scope=scope, batch_size=batch_size)
    settings = replace(resolved(settings, model), steps=STEPS, warm_start=False, **UNEDITED)
    measured = sizes(model, settings, "a x")
    estimate = measured.total(plan, batch_size)
    with LiveBytes() as live:
        list(begin(model, training_sets(model), settings, plan=plan))
    peak = measured.model + live.peak
    figures = f"{estimate / GB:>11.2f}{peak / GB:>11.2f}{100 * (estimate / peak - 1):>+9.1f} %"
    return f"{name:<8}{scope:<8}{figures}"


def compare(options: argparse.Namespace) -> None:
    """Print the table of estimates and measurements."""
    say(f"{options.batch_size} pictures per step, {options.micro_batch} at a time\n{COLUMNS}")
    for name, (build, full, small) in MODELS.items():
        if options.model in (None, name):
            model = build(small if options.small else full, torch.device("cpu"))
            for scope in options.scopes:
                plan = Plan(options.micro_batch)
                say(beside(name, model, scope, plan, options.batch_size))


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
    parser.add_argument("--small", action="store_true", help="small random models")
    parser.add_argument("--scope", choices=SCOPES, help="unlearn as well, with this scope")
    parser.add_argument("--image-size", type=int, default=0, help="in pixels, 0 is the model's own")
    parser.add_argument("--batch-size", type=int, default=1, help="pictures of each kind in a step")
    parser.add_argument("--precision", choices=("mixed", "fp32"), help="measure only this one")
    parser.add_argument("--work", choices=(OPEN, SAVE, TRAIN), help=argparse.SUPPRESS)
    options = parser.parse_args(arguments)
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
