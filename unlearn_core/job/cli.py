"""``python -m unlearn_core``: unlearning jobs without ComfyUI."""

from __future__ import annotations

import argparse
import itertools
import json
import signal
import sys
from collections.abc import Sequence
from contextlib import ExitStack, nullcontext, suppress
from pathlib import Path

import torch

from ..dataset.drawing import LatentCache
from ..foundation.devices import best_device
from ..foundation.locks import only_run_in
from ..foundation.plurals import count_of
from ..foundation.processes import ALONE, PeerError, Processes, launched
from ..foundation.signals import StopSignal, like_ctrl_c
from ..models.rounding import measure_rounding
from ..prompts.files import write_prompts
from ..prompts.language_model import Proposer, extended
from ..prompts.pairs import repetition
from ..reporting.report import report_json, summary, table
from .console import CACHE, Bars, escape_unknown_characters, say
from .job import RESUME, SAVE_AS, Job, on_disk, require_unlearned
from .last_catch import describe_unexpected
from .reference import reference
from .settings_file import JobSettings, read_settings

SETTINGS = "settings"  # this stage only checks
PICTURE_CACHE = "cache"
UNLEARNING_STAGES = ("unlearn", "run")
# Stages of the main process alone.
NOT_SHARED = (SETTINGS, PICTURE_CACHE, "prompts", "propose", "save")
STOPPED = "stopped"
OUT_OF_MEMORY = (
    "lower batch_size in the sections `unlearn`, `generation` and `evaluation.generation`, or "
    "choose the scope xattn or lora"
)


def create_parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m unlearn_core",
        description=__doc__,
        epilog="`python -m unlearn_core settings --help` explains every field of a settings file.",
    )
    stages = parser.add_subparsers(dest="stage", required=True)
    stages.add_parser(
        SETTINGS,
        help="check a settings file; its --help explains every field",
        description="Check a settings file. Sections and fields:",
        epilog=reference(),
        formatter_class=argparse.RawDescriptionHelpFormatter,
    ).add_argument("settings", help="settings file, JSON")
    text = "show the size of the cache of drawn pictures, limit or clear it"
    cache = stages.add_parser(PICTURE_CACHE, help=text, description=text)
    cache.add_argument("--cache", type=Path, default=CACHE, help="folder of drawn pictures")
    cache.add_argument("--clear", action="store_true", help="delete all pictures in it")
    text = "from now on, keep the pictures in it below this size; 5 by default"
    cache.add_argument("--limit", type=float, metavar="GB", help=text)
    for stage, text in (
        ("prompts", "show the diversified prompt pairs, without drawing anything"),
        ("propose", "propose more values for each dimension, with your own language model"),
        ("unlearn", "draw the forget and retain sets and unlearn; stores the result in --out"),
        ("evaluate", "compare the unlearned model in --out with the original"),
        ("save", "save the unlearned model in --out as a model file or folder"),
        ("run", "unlearn, evaluate and save"),
    ):
        sub = stages.add_parser(stage, help=text, description=text)
        sub.add_argument("settings", help="settings file, JSON")
        sub.add_argument("--json", action="store_true", help="print the result as JSON")
        if stage == "propose":
            sub.add_argument(
                "--language-model", type=Path, required=True, help="a model folder for transformers"
            )
            sub.add_argument(
                "--count", type=int, default=8, help="values to propose per dimension (%(default)s)"
            )
            sub.add_argument("--concept", help="which concept to propose for; the first by default")
        if stage not in ("prompts", "propose"):
            sub.add_argument(
                "--out", type=Path, default=Path("unlearned"), help="folder of results"
            )
            sub.add_argument("--cache", type=Path, default=CACHE, help="folder of drawn pictures")
        if stage != "prompts":
            sub.add_argument(
                "--device",
                default=best_device(),
                help="cuda (NVIDIA, AMD), mps (Apple), xpu (Intel) or cpu; default on this "
                "machine: %(default)s",
            )
        if stage in UNLEARNING_STAGES:
            choice = sub.add_mutually_exclusive_group()
            choice.add_argument(
                "--restart",
                action="store_true",
                help="begin anew instead of continuing a stopped run in --out",
            )
            choice.add_argument(
                "--partial",
                action="store_true",
                help="use the finished steps of a stopped run in --out as the result; the run can "
                "still be continued later",
            )
        if stage in ("save", "run"):
            sub.add_argument(
                "--as",
                dest="save_as",
                choices=SAVE_AS,
                default=SAVE_AS[0],
                help="kind of file (%(default)s)",
            )
            sub.add_argument("--rank", type=int, default=32, help="rank of a LoRA (%(default)s)")
    return parser


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line and return its exit status. A mistake in the settings or files is
    reported in one line on stderr."""
    escape_unknown_characters()  # also those of --help
    options = create_parser().parse_args(arguments)
    processes = launched()
    origin = "" if processes.is_main else f" in process {processes.rank}"
    with like_ctrl_c() if processes.count == 1 else nullcontext():
        try:
            with processes.joined():
                run(options, processes)
            return 0
        except PeerError as error:
            message, status = f"error: {error}" if processes.is_main else "", 2
        except (ValueError, OSError) as error:
            message, status = f"error{origin}: {error}", 2
        except torch.OutOfMemoryError as error:
            message, status = f"error{origin}: {str(error).splitlines()[0]}\n{OUT_OF_MEMORY}", 2
        except Exception as error:  # noqa: BLE001 - the last catch: no traceback for an artist
            message, status = describe_unexpected(error, options), 3
        except KeyboardInterrupt as stop:
            message = f"{STOPPED}{origin}" if options.stage in UNLEARNING_STAGES else ""
            status = 128 + (stop.number if isinstance(stop, StopSignal) else signal.SIGINT)
        _report_end(options, message, processes)
        return status


def _report_end(options: argparse.Namespace, message: str, processes: Processes) -> None:
    """Report an error or a stop, and what can be continued."""
    lines, unlearns = [message], options.stage in UNLEARNING_STAGES and processes.is_main
    if unlearns and (message.startswith(STOPPED) or (options.out / RESUME).exists()):
        lines.append(on_disk(options.out))
    with suppress(OSError):  # the terminal may be closed
        sys.stderr.writelines(f"{line}\n" for line in lines if line)


def run(options: argparse.Namespace, processes: Processes) -> None:
    if options.stage in NOT_SHARED:
        if not processes.is_main:
            return
        processes = ALONE
    if options.stage == PICTURE_CACHE:
        picture_cache(LatentCache(options.cache), clear=options.clear, limit=options.limit)
        return
    settings = read_settings(options.settings)
    if options.stage == SETTINGS:
        say(f"{options.settings}: no mistakes found")
        return
    if "device" in options:
        options.device = processes.use_device(options.device)
        _check_device(options.device)
    if options.stage == "prompts":
        pairs = settings.pairs()
        for part, split in itertools.product(pairs.each, ("train", "test")):
            if warning := repetition(part.concept, getattr(part, split)):
                sys.stderr.write(f"{part.concept.name}, {split}: {warning}\n")
        if settings.needs_neighbours:
            sys.stderr.write(
                "neighbours: not included, because finding them needs the model; `unlearn` adds "
                "them and stores the complete prompts in its folder\n"
            )
        if options.json:
            if pairs.also:
                raise ValueError(
                    "also: a file of prompts can contain only one concept; remove the others, or "
                    "use the files that `unlearn` stores in its folder"
                )
            # Only ASCII, because PowerShell decodes it with another encoding than ours.
            say(json.dumps(json.loads(write_prompts(pairs)), indent=1))
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
    bars = Bars(hidden=not processes.is_main)
    job = Job(
        settings,
        options.out,
        cache=LatentCache(options.cache),
        device=options.device,
        progress=bars,
        processes=processes,
    )
    lock = ExitStack()
    try:
        if options.stage in ("save", "run"):
            job.check_save(options.save_as, options.rank)
        if processes.is_main:
            lock.enter_context(only_run_in(options.out))
        if options.stage in UNLEARNING_STAGES:
            unlearned = job.unlearn(restart=options.restart, partial=options.partial)
        else:
            unlearned = job.unlearned()
        done, total = len(unlearned.reports), unlearned.settings.steps
        if 0 < done < total and processes.is_main:
            sys.stderr.write(f"unlearn: stopped after {done} of {count_of(total, 'step')}\n")
        report = job.evaluate(unlearned) if options.stage in ("evaluate", "run") else None
        if not processes.is_main:
            return
        saved = None
        if options.stage in ("save", "run"):
            saved = job.save(unlearned, options.save_as, options.rank)
        if options.stage in UNLEARNING_STAGES and not options.partial:
            job.resumption.remove()
    finally:
        bars.close()
        lock.close()
    if options.json:
        say(json.dumps(job.figures() or report_json(unlearned, None, job.cost)))
        return
    if report is not None:
        say(f"{table(report)}\n\n{summary(report)}")
    if saved is not None:
        share = f" (captures {100 * job.captured:.1f} % of the change)" if job.captured < 1 else ""
        say(f"Saved: {saved}{share}")
        rounding = measure_rounding(unlearned.model, unlearned.base)
        if options.save_as != "lora" and rounding is not None:
            say(f"Precision: {rounding}")
    durations = ", ".join(f"{phase} {seconds:.0f} s" for phase, seconds in job.seconds.items())
    say(f"Results in {options.out} ({durations})")


def picture_cache(cache: LatentCache, *, clear: bool, limit: float | None) -> None:
    """Print the size of the cache, and what clearing it has freed.

    Args:
        limit: its new limit in gigabytes; None leaves it unchanged.
    """
    if limit is not None:
        cache.set_limit(limit)
    before = cache.size()
    remaining = cache.clear() if clear else before
    if clear:
        pictures, freed = before.pictures - remaining.pictures, before.size - remaining.size
        say(f"Deleted: {count_of(pictures, 'picture')}, {freed / 1e9:.2f} GB")
    say(
        f"{cache.folder}: {count_of(remaining.pictures, 'picture')}, "
        f"{remaining.size / 1e9:.2f} GB of at most {cache.limit / 1e9:.2f} GB"
    )


def _check_device(device: str) -> None:
    try:
        torch.zeros(1, device=device).item()
    except (RuntimeError, AssertionError, NotImplementedError) as error:
        reason = str(error).splitlines()[0]
        raise ValueError(f"device: {device!r} is not available ({reason}); try cpu") from None


def propose(settings: JobSettings, options: argparse.Namespace) -> None:
    """Print the dimensions with the proposed values, in the form of a settings file."""
    name = settings.concept.name if options.concept is None else options.concept
    parts = {part.concept.name: part for part in (settings, *settings.also)}
    if name not in parts:
        raise ValueError(f"concept must be one of {', '.join(parts)}, got {name!r}")
    concept, prompts = parts[name].concept, parts[name].prompts
    if prompts.file is not None:
        raise ValueError(
            f"prompts.file: {prompts.file.name!r} contains complete prompts, so no values can be "
            "added; use templates and dimensions instead"
        )
    if options.count < 1:
        raise ValueError(f"count must be 1 or more, got {options.count}")
    _, dimensions = prompts.grid(concept)
    proposer = Proposer(options.language_model, options.device)
    bars = Bars()
    try:
        extended_dimensions = extended(
            proposer, dimensions, options.count, concept, seed=prompts.seed, progress=bars
        )
    finally:
        bars.close()
    if options.json:
        say(json.dumps(extended_dimensions))
        return
    for dimension, values in extended_dimensions.items():
        say(f"{dimension}: {', '.join(values)}")
