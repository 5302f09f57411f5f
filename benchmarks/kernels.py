"""Whether channels-last or ``torch.compile`` pays: ``python -m benchmarks.kernels``.

A forward and a backward pass of the whole denoiser in three forms, which take turns in one process:
as it is, with channels-last weights and pictures, and compiled. A ratio is the median over the
rounds. Times on the CPU are processor time of one thread. The first pass is timed separately,
because it includes compiling. ``--no-compile`` leaves out the compiled form, which needs a C++
compiler on the CPU. Each model writes a record into ``benchmarks/results/speed``. ``--table``
prints the table of the records.
"""

from __future__ import annotations

import argparse
import copy
import json
import statistics
from collections.abc import Callable

import torch
import torch._inductor.config as compiler
from torch import Tensor, nn

from benchmarks.speed import RESULTS, timed
from benchmarks.speed_models import MODELS
from unlearn_core.job.console import say
from unlearn_core.models.stable_diffusion import StableDiffusionHandle

PLAIN, CHANNELS_LAST, COMPILED = "as it is", "channels-last", "compiled"
ROUNDS = 5


def forms(model: StableDiffusionHandle, *, compiles: bool) -> dict[str, Callable[..., object]]:
    """The denoiser in each form, with gradients for all weights."""
    plain: nn.Module = copy.deepcopy(model.denoiser).requires_grad_(True)
    form: dict[str, Callable[..., object]] = {
        PLAIN: plain,
        CHANNELS_LAST: copy.deepcopy(plain).to(memory_format=torch.channels_last),  # pyright: ignore[reportCallIssue]
    }
    if compiles:
        form[COMPILED] = torch.compile(copy.deepcopy(plain), dynamic=False)
    return form


def passes(model: StableDiffusionHandle, form: Callable[..., object], inputs: list[Tensor]) -> None:
    """A forward and a backward pass."""
    latents, t, prompts = inputs
    with model.autocast():
        output: Tensor = form(latents, t, prompts).sample.float()  # pyright: ignore[reportAttributeAccessIssue]
    output.square().mean().backward()


def measure(
    name: str, batch_size: int, device: torch.device, *, compiles: bool
) -> dict[str, object]:
    build, size = MODELS[name]
    model = build(size, device)
    latents = torch.randn(batch_size, *model.latent_shape, device=device)
    prompts = model.encode_prompts(["a cat"] * batch_size).to(device).values
    inputs = [latents, torch.full((batch_size,), 500, device=device), prompts]
    first: dict[str, float] = {}
    times: dict[str, list[float]] = {}
    competitors = forms(model, compiles=compiles)
    for _ in range(1 + ROUNDS):
        for form, network in competitors.items():
            own = list(inputs)
            if form == CHANNELS_LAST:
                own[0] = latents.to(memory_format=torch.channels_last)
            compared, elapsed = timed(lambda n=network, i=own: passes(model, n, i), device)
            if form in first:
                times.setdefault(form, []).append(compared)
            else:
                first[form] = elapsed
    return {
        "model": name,
        "batch_size": batch_size,
        "torch": torch.__version__,
        "seconds": {form: statistics.median(each) for form, each in times.items()},
        "first_pass_seconds": first,
        "ratios": {
            form: statistics.median(a / b for a, b in zip(each, times[PLAIN], strict=True))
            for form, each in times.items()
        },
    }


def table() -> str:
    """For each model and form, the time relative to the denoiser as it is, and the first pass."""
    rows = [
        "| model | form | time of a pass, relative | first pass |",
        "| --- | --- | --- | --- |",
    ]
    for file in sorted(RESULTS.glob("kernels-*.json")):
        record = json.loads(file.read_text(encoding="utf-8"))
        for form, ratio in record["ratios"].items():
            first = record["first_pass_seconds"][form]
            rows.append(f"| {record['model']} | {form} | {ratio:.2f} | {first:.0f} s |")
    return "\n".join(rows)


def main(arguments: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.kernels", description=__doc__)
    parser.add_argument("--models", nargs="+", choices=MODELS, default=["demo", "sd15-half"])
    parser.add_argument("--no-compile", action="store_true", help="leave out the compiled form")
    parser.add_argument("--table", action="store_true", help="print the table, run nothing")
    options = parser.parse_args(arguments)
    if options.table:
        say(table())
        return
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    compiler.force_disable_caches = True  # the first pass is that of a new user
    if device.type == "cpu":
        torch.set_num_threads(1)
    for name in options.models:
        pictures = 8 if name == "demo" else 1
        record = measure(name, pictures, device, compiles=not options.no_compile)
        say(json.dumps(record, indent=2))
        file = RESULTS / f"kernels-{device.type}-{name}.json"
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(json.dumps(record, indent=2) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
