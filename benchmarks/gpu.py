"""Time and memory of unlearning steps on a GPU, by scope: ``python -m benchmarks.gpu``.

It takes steps of the pack's own loop on SDXL and Flux.1-dev at full width, at 1024 px, with random
weights in 16 bits, prints a table, and writes ``benchmarks/results/gpu/<device>.json``. This takes
a few minutes. Nothing is downloaded. No text encoders and no autoencoders are loaded: random
embeddings and latents of the right shapes take the place of prompts and pictures, because time and
memory do not depend on their values. So the memory is that of the denoiser, the gradients, the
optimizer and the activations.

The networks are those of diffusers, as in Load Model; From ComfyUI uses ComfyUI's own. The warm
start, which needs real prompts, is left out.
"""

from __future__ import annotations

import argparse
import gc
import json
import re
import statistics
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path

import torch

from benchmarks.gpu_models import MODELS, Build, Sizes
from benchmarks.memory import GIB, training_sets
from unlearn_core.job.console import say
from unlearn_core.models.layers import AUTO, LORA_TEXT_PATH, LORA_XATTN
from unlearn_core.models.protocol import ModelHandle
from unlearn_core.unlearning.methods import begin
from unlearn_core.unlearning.settings import UnlearnSettings

RESULTS = Path(__file__).parent / "results" / "gpu"
SCOPES = (LORA_TEXT_PATH, LORA_XATTN, AUTO)
UNTIMED, TIMED = 2, 5  # steps; the first ones choose kernels and create Adam's moments
COLUMNS = f"{'model':<12}{'scope':<24}{'trained':>10}{'s/step':>9}{'peak GiB':>10}"


@dataclass(frozen=True)
class Measurement:
    """Steps of one scope.

    Attributes:
        scope: the scope's own name, also for ``auto``.
        default: whether it is the model's default scope.
        trained: number of trained parameters.
        seconds: median of a step.
        peak_bytes: of the device's memory; None on the CPU.
        fits: False if the device has too little memory; all figures are then None.
    """

    model: str
    scope: str
    default: bool
    trained: int | None = None
    seconds: float | None = None
    peak_bytes: int | None = None
    fits: bool = True

    def __str__(self) -> str:
        scope = f"{self.scope} (default)" if self.default else self.scope
        if self.trained is None or self.seconds is None:
            return f"{self.model:<12}{scope:<24}  out of memory"
        memory = "–" if self.peak_bytes is None else f"{self.peak_bytes / GIB:.1f}"
        trained = f"{self.trained / 1e6:.1f} M"
        return f"{self.model:<12}{scope:<24}{trained:>10}{self.seconds:>9.3f}{memory:>10}"


def measure(name: str, model: ModelHandle, scope: str, batch_size: int) -> Measurement:
    """Take steps. A scope that does not fit into memory is a result, not an error."""
    is_default = scope == AUTO
    scope = model.default_scope if is_default else scope
    settings = UnlearnSettings(
        scope=scope, batch_size=batch_size, steps=UNTIMED + TIMED, warm_start=False
    )
    on_gpu = model.device.type == "cuda"
    if on_gpu:
        torch.cuda.reset_peak_memory_stats()
    try:
        run = begin(model, training_sets(model), settings)
        seconds = [report.seconds for report in run][UNTIMED:]
    except torch.OutOfMemoryError:
        return Measurement(name, scope, is_default, fits=False)
    trained = run.result().model
    shared = {id(parameter) for _, parameter in model.named_parameters()}
    count = sum(p.numel() for _, p in trained.named_parameters() if id(p) not in shared)
    peak = torch.cuda.max_memory_allocated() if on_gpu else None
    return Measurement(name, scope, is_default, count, statistics.median(seconds), peak)


def measurements(
    name: str, build: Build, sizes: Sizes, device: torch.device, batch_size: int
) -> Iterator[Measurement]:
    """Every scope of a model, which is built once; its default scope as ``auto``."""
    try:
        model = build(sizes, device)
    except torch.OutOfMemoryError:
        yield Measurement(name, "any scope", False, fits=False)
        return
    for scope in SCOPES:
        if scope == AUTO or (scope != model.default_scope and model.parameters_in(scope)):
            _free()
            yield measure(name, model, scope, batch_size)


def _free() -> None:
    gc.collect()
    if torch.cuda.is_available():
        torch.cuda.empty_cache()


def main(arguments: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.gpu", description=__doc__)
    parser.add_argument("--batch-size", type=int, default=1, help="pictures of each kind in a step")
    parser.add_argument(
        "--small", action="store_true", help="small models, also on a CPU, to try the script"
    )
    parser.add_argument("--results", type=Path, default=RESULTS, help="the folder of the records")
    options = parser.parse_args(arguments)
    if not (torch.cuda.is_available() or options.small):
        parser.error("no GPU found: install a PyTorch with CUDA or ROCm, or add --small")
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    label = torch.cuda.get_device_name() if device.type == "cuda" else "CPU"
    say(f"{label}, PyTorch {torch.__version__}, batch size {options.batch_size}\n{COLUMNS}")
    rows: list[Measurement] = []
    for name, (build, full, small) in MODELS.items():
        sizes = small if options.small else full
        for row in measurements(name, build, sizes, device, options.batch_size):
            say(str(row))
            rows.append(row)
        _free()
    options.results.mkdir(parents=True, exist_ok=True)
    suffix = " small" if options.small else ""
    file = options.results / (re.sub(r"\W+", "-", f"{label}{suffix}".lower()) + ".json")
    record = {
        "device": label,
        "torch": torch.__version__,
        "small": options.small,
        "image_size": {name: model[1 + options.small].image_size for name, model in MODELS.items()},
        "batch_size": options.batch_size,
        "measurements": [asdict(row) for row in rows],
    }
    file.write_text(json.dumps(record, indent=2) + "\n", encoding="utf-8")
    say(f"written to {file}")


if __name__ == "__main__":
    main()
