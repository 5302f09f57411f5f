"""Peak memory of opening, and of saving again, a checkpoint: ``python -m benchmarks.memory FILE``.

Each line is a process of its own, and counts everything resident, file pages included.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import tempfile
from pathlib import Path

from unlearn_core.cli import say

GIB = 2**30
RUN = """
import sys
from pathlib import Path
from unlearn_core.checkpoints import save_single_file
from unlearn_core.concepts import ForgetConcept
from unlearn_core.models.load import load_model
from unlearn_core.models.options import LoadOptions
from unlearn_core.prompts import diversify
from unlearn_core.settings import UnlearnSettings
from unlearn_core.unlearn import UnlearnedModel

file, precision, saved = sys.argv[1:]
model = load_model(file, options=LoadOptions(precision=precision))
if saved:
    concept = ForgetConcept("x")
    pairs = diversify(concept, ["{a} {concept}"], {"a": ("a", "b")}, train_count=1, test_count=1)
    result = UnlearnedModel(model, model, pairs, UnlearnSettings(), ())
    save_single_file(result, saved)
"""


def peak(*arguments: str) -> int:
    """Largest resident size in bytes of a process that runs ``RUN``."""
    process = subprocess.Popen([sys.executable, "-c", RUN, *arguments])
    _, status, usage = os.wait4(process.pid, 0)
    if status:
        raise SystemExit(os.waitstatus_to_exitcode(status))
    return usage.ru_maxrss * (1 if sys.platform == "darwin" else 1024)


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.memory", description=__doc__)
    parser.add_argument("file", type=Path)
    options = parser.parse_args()
    size = options.file.stat().st_size
    say(f"{options.file.name}: {size / GIB:.2f} GiB on disk")
    with tempfile.TemporaryDirectory(dir=options.file.parent) as room:
        for precision in ("mixed", "fp32"):
            for what, saved in (("open", ""), ("open and save", f"{room}/{precision}.safetensors")):
                used = peak(str(options.file), precision, saved)
                say(f"{precision:<6}{what:<14}{used / GIB:6.2f} GiB, {used / size:.2f} × the file")


if __name__ == "__main__":
    main()
