"""Peak memory of opening a checkpoint, of saving it again, and of unlearning steps:
``python -m benchmarks.memory FILE --scope xattn --image-size 512 --batch-size 8``.

Each line of output is from a separate process on the CPU, and counts all resident memory, including
file pages.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import tempfile
from pathlib import Path

import torch

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
from unlearn_core.unlearning.methods import begin
from unlearn_core.unlearning.results import UnlearnedModel
from unlearn_core.unlearning.settings import UnlearnSettings

GIB = 2**30
OPEN, SAVE, TRAIN = "open", "open and save", "open and unlearn"
STEPS = 2  # the first creates Adam's moments, so that the second includes them


def pairs() -> PromptPairs:
    concept = ForgetConcept("x", replacements=("y",))
    words = {"a": ("a", "b")}
    return diversify(concept, ["{a} {concept}"], words, train_count=1, test_count=1)


def save(model: ModelHandle, room: Path) -> None:
    save_single_file(
        UnlearnedModel(model, model, pairs(), UnlearnSettings(), ()), room / "saved.safetensors"
    )


def train(model: ModelHandle, scope: str, batch_size: int) -> None:
    """Take steps on noise, which need the same memory as pictures."""
    forget, retain = (
        Rows(torch.randn(1, *model.latent_shape), model.encode_prompts([prompt]).to("cpu"))
        for prompt in ("a x", "a y")
    )
    paired = PairedRows(forget, retain, torch.zeros(1, dtype=torch.long))
    settings = UnlearnSettings(scope=scope, batch_size=batch_size, steps=STEPS, warm_start=False)
    list(begin(model, TrainingSets(pairs(), (paired,), (retain,)), settings))


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


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.memory", description=__doc__)
    parser.add_argument("file", type=Path)
    parser.add_argument("--scope", choices=SCOPES, help="unlearn as well, with this scope")
    parser.add_argument("--image-size", type=int, default=0, help="in pixels, 0 is the model's own")
    parser.add_argument("--batch-size", type=int, default=1, help="pictures of each kind in a step")
    parser.add_argument("--precision", choices=("mixed", "fp32"), help="measure only this one")
    parser.add_argument("--work", choices=(OPEN, SAVE, TRAIN), help=argparse.SUPPRESS)
    options = parser.parse_args()
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
