"""``python -m unlearn_core``: the same job without ComfyUI."""

from __future__ import annotations

import argparse
import itertools
import json
import sys
from collections.abc import Sequence
from pathlib import Path

import torch

from ..dataset.drawing import LatentCache
from ..prompts.files import write_prompts
from ..prompts.language_model import Proposer, extended
from ..prompts.pairs import repetition
from ..reporting.report import report_json, summary, table
from .console import CACHE, Bars, say
from .job import SAVE_AS, Job, require_unlearned
from .reference import reference
from .settings_file import JobSettings, read_settings

SETTINGS = "settings"  # the stage that only checks
OUT_OF_MEMORY = (
    "lower batch_size in the section `unlearn`, or in `generation` and `evaluation.generation`; or "
    "choose the scope xattn or lora"
)


def parser() -> argparse.ArgumentParser:
    top = argparse.ArgumentParser(
        prog="python -m unlearn_core",
        description=__doc__,
        epilog="`python -m unlearn_core settings --help` explains every field of a settings file.",
    )
    stages = top.add_subparsers(dest="stage", required=True)
    stages.add_parser(
        SETTINGS,
        help="check a settings file; its --help explains every field",
        description="Checks a settings file. Its sections and their fields:",
        epilog=reference(),
        formatter_class=argparse.RawDescriptionHelpFormatter,
    ).add_argument("settings", help="settings file, JSON")
    for stage, text in (
        ("prompts", "show the diversified prompt pairs; nothing is drawn"),
        ("propose", "let a language model of yours propose more values for each dimension"),
        ("unlearn", "draw the forget and retain sets and unlearn; leaves the result in --out"),
        ("evaluate", "compare what `unlearn` left in --out with the model before"),
        ("save", "write what `unlearn` left in --out as a model file or folder"),
        ("run", "unlearn, evaluate and save, one after the other"),
    ):
        sub = stages.add_parser(stage, help=text, description=text)
        sub.add_argument("settings", help="settings file, JSON")
        sub.add_argument("--json", action="store_true", help="print the result as JSON")
        if stage == "propose":
            sub.add_argument(
                "--language-model", type=Path, required=True, help="a folder of transformers"
            )
            sub.add_argument("--count", type=int, default=8, help="of each (%(default)s)")
            sub.add_argument("--concept", help="which of those to forget; the first by default")
        if stage not in ("prompts", "propose"):
            sub.add_argument(
                "--out", type=Path, default=Path("unlearned"), help="folder of results"
            )
            sub.add_argument("--cache", type=Path, default=CACHE, help="folder of drawn pictures")
        if stage != "prompts":
            device = "cuda" if torch.cuda.is_available() else "cpu"
            sub.add_argument("--device", default=device, help="%(default)s here by default")
        if stage in ("save", "run"):
            sub.add_argument(
                "--as",
                dest="save_as",
                choices=SAVE_AS,
                default=SAVE_AS[0],
                help="kind of file (%(default)s)",
            )
            sub.add_argument("--rank", type=int, default=32, help="of a LoRA (%(default)s)")
    return top


def main(arguments: Sequence[str] | None = None) -> int:
    """Returns the exit status; a mistake in the settings or files is one line on stderr."""
    options = parser().parse_args(arguments)
    try:
        run(options)
    except (ValueError, OSError) as error:
        sys.stderr.write(f"error: {error}\n")
        return 2
    except torch.OutOfMemoryError as error:
        sys.stderr.write(f"error: {str(error).splitlines()[0]}\n{OUT_OF_MEMORY}\n")
        return 2
    except KeyboardInterrupt:
        if options.stage in ("unlearn", "run"):
            sys.stderr.write(
                f"stopped: pictures and steps are kept; `evaluate` and `save` go on from the steps "
                f"in {options.out}, if there are any\n"
            )
        return 130
    return 0


def run(options: argparse.Namespace) -> None:
    settings = read_settings(options.settings)
    if options.stage == SETTINGS:
        say(f"{options.settings}: no mistake found")
        return
    if "device" in options:
        _check_device(options.device)
    if options.stage == "prompts":
        pairs = settings.pairs()
        for part, split in itertools.product(pairs.each, ("train", "test")):
            if told := repetition(part.concept, getattr(part, split)):
                sys.stderr.write(f"{part.concept.name}, {split}: {told}\n")
        if settings.wants_neighbours:
            sys.stderr.write(
                "neighbours: `unlearn` finds and adds them, for it loads the model, and leaves the "
                "whole prompts in its folder\n"
            )
        if options.json:
            if pairs.also:
                raise ValueError(
                    "also: a prompt file is for one concept only; leave the other concepts out, or "
                    "use the prompt files in the folder of `unlearn`"
                )
            sys.stdout.write(write_prompts(pairs))
        else:
            for part, split in itertools.product(pairs.each, ("train", "test")):
                for pair in getattr(part, split):
                    say(f"{split:<6}{pair.forget}  |  {pair.retain}")
        return
    if options.stage == "propose":
        propose(settings, options)
        return
    if options.stage in ("evaluate", "save"):
        require_unlearned(options.out)  # before the model is loaded
    bars = Bars()
    job = Job(
        settings,
        options.out,
        cache=LatentCache(options.cache),
        device=options.device,
        progress=bars,
    )
    try:
        if options.stage in ("save", "run"):
            job.check_save(options.save_as, options.rank)
        unlearned = job.unlearn() if options.stage in ("unlearn", "run") else job.unlearned()
        made, wanted = len(unlearned.reports), unlearned.settings.steps
        if 0 < made < wanted:
            sys.stderr.write(f"unlearn: broken off after {made} of {wanted} steps\n")
        report = job.evaluate(unlearned) if options.stage in ("evaluate", "run") else None
        saved = None
        if options.stage in ("save", "run"):
            saved = job.save(unlearned, options.save_as, options.rank)
    finally:
        bars.close()
    if options.json:
        say(json.dumps(job.figures() or report_json(unlearned, None, job.seconds)))
        return
    if report is not None:
        say(f"{table(report)}\n\n{summary(report)}")
    if saved is not None:
        held = f" (holds {100 * job.captured:.1f} % of the change)" if job.captured < 1 else ""
        say(f"Saved: {saved}{held}")
    took = ", ".join(f"{phase} {seconds:.0f} s" for phase, seconds in job.seconds.items())
    say(f"Results in {options.out} ({took})")


def _check_device(device: str) -> None:
    try:
        torch.zeros(1, device=device).item()
    except (RuntimeError, AssertionError, NotImplementedError) as error:
        reason = str(error).splitlines()[0]
        raise ValueError(f"device: {device!r} cannot be used here ({reason}); try cpu") from None


def propose(settings: JobSettings, options: argparse.Namespace) -> None:
    """Prints the dimensions with the proposed values, as a settings file has them."""
    wanted = settings.concept.name if options.concept is None else options.concept
    grids = {part.concept.name: part for part in (settings, *settings.also)}
    if wanted not in grids:
        raise ValueError(f"concept must be one of {', '.join(grids)}, got {wanted!r}")
    concept, prompts = grids[wanted].concept, grids[wanted].prompts
    if prompts.file is not None:
        raise ValueError(
            f"prompts.file: {prompts.file.name!r} contains complete prompts, so no values can "
            "be added; use templates and dimensions instead"
        )
    if options.count < 1:
        raise ValueError(f"count must be 1 or more, got {options.count}")
    _, dimensions = prompts.grid(concept)
    proposer = Proposer(options.language_model, options.device)
    bars = Bars()
    try:
        found = extended(
            proposer, dimensions, options.count, concept, seed=prompts.seed, progress=bars
        )
    finally:
        bars.close()
    if options.json:
        say(json.dumps(found, ensure_ascii=False))
        return
    for name, values in found.items():
        say(f"{name}: {', '.join(values)}")
