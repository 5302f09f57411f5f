"""Time and memory of a step against other ways: ``python -m benchmarks.speed --models demo``.

It compares a step of the pack's own loop with three others on the same model and pictures:

- *bare*: the denoiser passes of the same step, those of the frozen model included, and AdamW;
- *paper*: the way of the paper's public implementation, see ``benchmarks/speed_steps.py``;
- *GradDiff*: plain gradient difference.

The ways take turns in one process, so that other load on the machine affects all alike. A ratio is
the median over the rounds. Times on the CPU are processor time of one thread. Memory is that of all
networks, of the optimizer, and of the peak of a step, measured in a separate step.

The models have random weights, apart from the demo's. *paper* and the scope ``full`` are left out
where they do not fit into ``--memory``; the models *half* have networks of half the width for them.
Each model writes ``benchmarks/results/speed/<device>-<model>.json``.
"""

from __future__ import annotations

import argparse
import gc
import json
import re
import statistics
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import asdict, dataclass, replace
from pathlib import Path

import torch

from benchmarks.live_bytes import peak_bytes, size_of
from benchmarks.memory import GIB
from benchmarks.speed_models import MODELS, SMALL
from benchmarks.speed_steps import BARE, GRADDIFF, LOSSES, OURS, PAPER, ways
from unlearn_core.job.console import say
from unlearn_core.models.layers import FULL, LORA, XATTN
from unlearn_core.models.stable_diffusion import StableDiffusionHandle

RESULTS = Path(__file__).parent / "results" / "speed"
SCOPES = (FULL, XATTN, LORA)
WARM_UP = 1  # rounds before the measured ones
WHOLE_NETWORK = 40  # bytes per weight that *paper* and the scope ``full`` need with GradDiff's
OTHERS = (BARE, GRADDIFF, PAPER)
COLUMNS = (
    f"{'model':<11}{'scope':<7}{'losses':<10}{'s/step':>8}{'/ bare':>8}{'/ GradDiff':>12}"
    f"{'paper / ours':>14}{'GiB':>8}{'sets more':>11}{'/ paper':>9}"
)


@dataclass(frozen=True)
class Comparison:
    """Steps of one scope with one kind of losses.

    Attributes:
        trained: number of trained parameters.
        seconds: way -> median of a step: processor time on the CPU, elapsed time on a GPU.
        elapsed: way -> median of the elapsed time of a step.
        ratios: way -> median over the rounds of the time of ours, relative to this way.
        memory: way -> bytes at the peak of a step.
    """

    model: str
    scope: str
    losses: str
    trained: int
    seconds: Mapping[str, float]
    elapsed: Mapping[str, float]
    ratios: Mapping[str, float]
    memory: Mapping[str, int]

    @property
    def sets_more(self) -> float:
        """Memory beyond that of GradDiff, in sets of fp32 gradients of the trained weights."""
        return (self.memory[OURS] - self.memory[GRADDIFF]) / (4 * self.trained)

    def __str__(self) -> str:
        faster, smaller = "–", "–"
        if PAPER in self.ratios:
            faster = f"{1 / self.ratios[PAPER]:.2f}"
            smaller = f"{self.memory[OURS] / self.memory[PAPER]:.2f}"
        return (
            f"{self.model:<11}{self.scope:<7}{self.losses:<10}{self.seconds[OURS]:>8.2f}"
            f"{self.ratios[BARE]:>8.3f}{self.ratios[GRADDIFF]:>12.3f}{faster:>14}"
            f"{self.memory[OURS] / GIB:>8.2f}{self.sets_more:>11.2f}{smaller:>9}"
        )


def timed(work: Callable[[], None], device: torch.device) -> tuple[float, float]:
    """Seconds of some work: compared (processor time on the CPU) and elapsed."""
    on_gpu = device.type == "cuda"
    if on_gpu:
        torch.cuda.synchronize()
    processor, start = time.process_time(), time.perf_counter()
    work()
    if on_gpu:
        torch.cuda.synchronize()
    elapsed = time.perf_counter() - start
    return (elapsed if on_gpu else time.process_time() - processor), elapsed


def compare(
    name: str,
    model: StableDiffusionHandle,
    scope: str,
    losses: str,
    *,
    batch_size: int,
    rounds: int,
    paper: bool,
) -> Comparison:
    """Let the ways take turns."""
    device, competitors = model.device, ways(model, scope, losses, batch_size, paper=paper)
    order = list(competitors)
    times: dict[str, list[tuple[float, float]]] = {way: [] for way in order}
    for i in range(WARM_UP + rounds):
        for way in order[i % len(order) :] + order[: i % len(order)]:  # each one is first in turn
            times[way].append(timed(competitors[way].step, device))
    times = {way: values[WARM_UP:] for way, values in times.items()}
    seconds = {way: [compared for compared, _ in values] for way, values in times.items()}
    memory: dict[str, int] = {}
    for way, competitor in competitors.items():
        gc.collect()
        memory[way] = peak_bytes(competitor.step, device) + size_of(competitor.tensors())
    return Comparison(
        name,
        scope,
        losses,
        trained=sum(p.numel() for p in competitors[BARE].optimizer.param_groups[0]["params"]),
        seconds={way: statistics.median(values) for way, values in seconds.items()},
        elapsed={way: statistics.median(e for _, e in values) for way, values in times.items()},
        ratios={
            way: statistics.median(o / s for o, s in zip(seconds[OURS], seconds[way], strict=True))
            for way in order
            if way != OURS
        },
        memory=memory,
    )


def comparisons(
    name: str, device: torch.device, options: argparse.Namespace
) -> Iterator[Comparison]:
    """Every scope of a model with both kinds of losses."""
    build, size = MODELS[name]
    model = build(SMALL if options.small else size, device)
    if options.image_size:
        model = replace(model, info=replace(model.info, image_size=options.image_size))
    weights = sum(parameter.numel() for _, parameter in model.named_parameters())
    fits = WHOLE_NETWORK * weights <= options.memory * GIB
    for scope in options.scopes:
        for losses in options.losses:
            if fits or scope != FULL:
                gc.collect()
                yield compare(
                    name, model, scope, losses,
                    batch_size=options.batch_size, rounds=options.rounds, paper=fits,
                )  # fmt: skip


def main(arguments: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.speed", description=__doc__)
    parser.add_argument("--models", nargs="+", choices=MODELS, default=["demo"])
    parser.add_argument("--scopes", nargs="+", choices=SCOPES, default=SCOPES)
    parser.add_argument("--losses", nargs="+", choices=LOSSES, default=list(LOSSES))
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--batch-size", type=int, default=1, help="pictures of each kind in a step")
    parser.add_argument("--image-size", type=int, default=0, help="in pixels, 0 is the model's own")
    parser.add_argument("--memory", type=float, default=24, help="of the device, in GiB")
    parser.add_argument("--small", action="store_true", help="small models, to try the script")
    parser.add_argument("--results", type=Path, default=RESULTS, help="the folder of the records")
    options = parser.parse_args(arguments)
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    label = torch.cuda.get_device_name() if device.type == "cuda" else "CPU"
    if device.type == "cpu":
        torch.set_num_threads(1)
    say(f"{label}, PyTorch {torch.__version__}, batch size {options.batch_size}\n{COLUMNS}")
    options.results.mkdir(parents=True, exist_ok=True)
    for name in options.models:
        rows: list[Comparison] = []
        for row in comparisons(name, device, options):
            say(str(row))
            rows.append(row)
        suffix = "-small" if options.small else ""
        file = options.results / (re.sub(r"\W+", "-", f"{label}-{name}{suffix}".lower()) + ".json")
        record = {
            "device": label,
            "torch": torch.__version__,
            "batch_size": options.batch_size,
            "rounds": options.rounds,
            "comparisons": [asdict(row) for row in rows],
        }
        file.write_text(json.dumps(record, indent=2) + "\n", encoding="utf-8")
        say(f"written to {file}")


if __name__ == "__main__":
    main()
