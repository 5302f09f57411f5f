"""Runs jobs of the command line in one of several processes: for ``test_processes.py``.

A launcher starts this file. Its argument is a JSON file: a list of jobs, each with the arguments of
the command line and, optionally, an ``accident`` during the second step.
"""

from __future__ import annotations

import json
import os
import signal
import sys
from collections.abc import Callable
from datetime import timedelta
from pathlib import Path
from typing import Any

from torch import distributed

from unlearn_core.job.cli import main
from unlearn_core.job.job import Job
from unlearn_core.unlearning.batches import Batches
from unlearn_core.unlearning.objectives import ForgetBatch
from unlearn_core.unlearning.results import StepReport

RANK = int(os.environ["RANK"])
draw, after_step, connect = Batches.forget, Job.after_step, distributed.init_process_group
all_reduce = distributed.all_reduce


def disk_full() -> None:
    if RANK == 1:
        raise OSError("disk full")


def interrupt() -> None:
    """Ctrl+C, which the terminal sends to every process."""
    os.kill(os.getpid(), signal.SIGINT)


def interrupt_the_next_exchange(self: Job, report: StepReport) -> None:
    def interrupted(*arguments: Any, **options: Any) -> Any:
        distributed.all_reduce = all_reduce
        interrupt()
        return all_reduce(*arguments, **options)

    distributed.all_reduce = interrupted


def at_the_second_call(accident: Callable[[], None]) -> Callable[[], None]:
    calls = iter((lambda: None, accident))
    return lambda: next(calls, lambda: None)()


def prepare(accident: str) -> None:
    """Let the next job have an accident."""
    Batches.forget, Job.after_step = draw, after_step
    distributed.all_reduce = all_reduce
    act = at_the_second_call(interrupt if accident == "interrupt" else disk_full)

    def forget(self: Batches) -> ForgetBatch:
        if self.settings.paired:  # not the rows of the watch
            act()
        return draw(self)

    def after(self: Job, report: StepReport) -> None:
        act()

    if accident in ("interrupt", "within a step"):
        Batches.forget = forget
    elif accident == "interrupt during an exchange":
        Job.after_step = interrupt_the_next_exchange
    elif accident == "between two steps":
        Job.after_step = after


def run() -> None:
    file = Path(sys.argv[1])
    codes = []
    address = os.environ["MASTER_ADDR"], int(os.environ["MASTER_PORT"])
    launchers = distributed.TCPStore(*address, is_master=False)
    for number, job in enumerate(json.loads(file.read_text(encoding="utf-8"))):
        # A launcher starts each process for one job; a second one needs other keys.
        store = distributed.PrefixStore(f"job {number}", launchers)

        def connect_again(
            backend: str, timeout: timedelta, store: distributed.Store = store
        ) -> None:
            connect(backend, timeout=timeout, store=store, rank=RANK, world_size=2)

        distributed.init_process_group = connect_again
        prepare(job.get("accident", ""))
        codes.append(main(job["arguments"]))
        if distributed.is_initialized():  # after a failure
            distributed.destroy_process_group()
    file.with_name(f"codes-{RANK}.json").write_text(json.dumps(codes), encoding="utf-8")


run()
