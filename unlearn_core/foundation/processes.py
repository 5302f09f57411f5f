"""The processes that share one run, as ``accelerate launch`` and ``torchrun`` start them.

Every process performs the same run and holds the same model; only the rows of a batch are divided
among them. All of them must therefore call the methods of ``Processes`` in the same order. Each of
these begins with an exchange of whether a process has failed, so that a process can leave the run
anywhere else: the others learn of it in their next exchange. A process without a launcher is
``ALONE``, and nothing here costs it anything.
"""

from __future__ import annotations

import os
import signal
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from datetime import timedelta

import torch
from torch import Tensor, distributed

from .cost import KINDS_OF_WORK
from .progress import Progress
from .signals import HANG_UP, deferred

PATIENCE = timedelta(days=1)
"""How long a process waits for the others: some work is for the main process alone. The launcher
notices much sooner if a process is gone."""


FAILED = "another process of this run failed"


class PeerError(RuntimeError):
    """Another process failed or was stopped; it reports the reason itself."""


@dataclass(frozen=True)
class Processes:
    """All processes of a run, as one of them sees them.

    Attributes:
        rank: number of this process, from 0, which is the main process. It alone writes files and
            prints.
        count: number of processes.
        local_rank: number of this process among those of the same host.
    """

    rank: int = 0
    count: int = 1
    local_rank: int = 0

    @property
    def is_main(self) -> bool:
        return self.rank == 0

    @property
    def is_first_of_host(self) -> bool:
        return self.local_rank == 0

    def use_device(self, name: str) -> str:
        """Choose the device of this process: its own one of the named kind.

        Args:
            name: such as ``"cuda"`` or ``"cpu"``.

        Raises:
            ValueError: several processes would share a device, or have none.
        """
        if self.count == 1 or name in ("cpu", "mps"):
            return name
        if ":" in name:
            raise ValueError(
                f"device must not be numbered with {self.count} processes, got {name!r}; each "
                f"takes its own: write {name.split(':')[0]!r}"
            )
        if name == "cuda":
            if self.local_rank >= torch.cuda.device_count():
                raise ValueError(
                    f"device: process {self.rank} has no GPU of its own, because this machine has "
                    f"{torch.cuda.device_count()}; start one process for each GPU"
                )
            torch.cuda.set_device(self.local_rank)
        return f"{name}:{self.local_rank}"

    def share(self, total: int) -> slice:
        """The rows of this process out of ``total``. Shares are contiguous and differ by one row at
        most; with fewer rows than processes, the last processes have none."""
        start, stop = (-(-rank * total // self.count) for rank in (self.rank, self.rank + 1))
        return slice(start, stop)

    def sum_(self, tensors: Sequence[Tensor]) -> None:
        """Replace tensors in place by their sums over the processes.

        Raises:
            PeerError: another process failed.
        """
        if self.count == 1:
            return
        with deferred():
            self._agree()
            _sum(tensors)

    def copy_main_(self, tensors: Sequence[Tensor]) -> None:
        """Replace tensors in place by those of the main process, so that rounding, which differs
        between devices, cannot lead to different decisions."""
        if not self.is_main:
            for tensor in tensors:
                tensor.zero_()
        self.sum_(tensors)

    @contextmanager
    def together(self, progress: Progress) -> Iterator[None]:
        """Context of the part of the work that this process does by itself. Nothing in it may
        wait for the other processes.

        If it fails in one process, all processes leave the run here. The denoiser passes of the
        others are added to ``progress``.

        Raises:
            PeerError: it failed in another process.
        """
        if self.count == 1:
            yield
            return
        before = dict(progress.passes)
        failed = True
        try:
            yield
            failed = False
        finally:
            own = {work: count - before[work] for work, count in progress.passes.items()}
            with deferred():
                if failed:
                    with suppress(PeerError):  # the reason is more important
                        _exchange(1, 1, *own.values())
                else:
                    for work, total in zip(own, self._agree(*own.values()), strict=True):
                        progress.passes[work] += total - own[work]

    def divided(
        self,
        total: int,
        at_once: int,
        work: Callable[[range], Tensor],
        progress: Progress,
    ) -> Iterator[tuple[range, Tensor]]:
        """Divide ``total`` rows among the processes. Yields groups of rows and their results
        [rows, ...], which are then the same in every process.

        Args:
            at_once: rows that a process works on at once, at most.
            work: the results of some rows.
        """
        for start in range(0, total, at_once * self.count):
            rows = range(start, min(total, start + at_once * self.count))
            share = self.share(len(rows))
            with self.together(progress):
                # A process without rows computes one as well: it needs the shape of a result.
                part = work(rows[share] or rows[:1])
            if self.count > 1:
                own, part = part, part.new_zeros(len(rows), *part.shape[1:])
                part[share] = own[: len(rows[share])]
                self.sum_([part])
            yield rows, part

    @contextmanager
    def joined(self) -> Iterator[None]:
        """Context of the run: connects the processes, and lets none end before the others.

        An error of all processes, such as a mistake in the settings, is raised in the main process
        only.

        Raises:
            PeerError: another process failed, or all did.
        """
        if self.count == 1:
            yield
            return
        has_nccl = torch.cuda.is_available() and distributed.is_nccl_available()
        distributed.init_process_group(
            "cpu:gloo,cuda:nccl" if has_nccl else "gloo", timeout=PATIENCE
        )
        # Ctrl+C and a closed terminal reach every process, but only the main process has steps to
        # store; the others end with it. The launcher sends SIGTERM if another process is gone,
        # which the main process notices by itself, and then stores the finished steps.
        ignored = (signal.SIGTERM, *HANG_UP) if self.is_main else (signal.SIGINT, *HANG_UP)
        handlers = {number: signal.signal(number, signal.SIG_IGN) for number in ignored}
        failed = own_error = True
        try:
            yield
            failed = own_error = False
        except PeerError:
            own_error = False
            raise
        finally:
            all_failed = self._leave(failed, own_error)
            for number, handler in handlers.items():
                signal.signal(number, handler)
            if all_failed and not self.is_main:
                raise PeerError("all processes of this run failed")
        distributed.destroy_process_group()

    def _leave(self, failed: bool, own_error: bool) -> bool:
        """Wait until all processes leave the run; return whether each failed by itself.

        A process may fail while others are in ``together``. They learn of it there and follow, so
        that at last either none or all have failed.

        Raises:
            PeerError: this process succeeded, another failed.
        """
        own_errors = failures = 0
        succeeded = not failed
        with suppress(PeerError), deferred():
            while True:
                failures, errors, *_ = _exchange(int(failed), int(own_error))
                own_errors = max(own_errors, errors)
                if failures in (0, self.count):
                    break
                failed = True
        if succeeded and failures:
            raise PeerError(FAILED)
        return own_errors == self.count

    def _agree(self, *passes: int) -> list[int]:
        """Exchange that this process has not failed; return the sums of the passes.

        Raises:
            PeerError: another process failed.
        """
        failures, _, *totals = _exchange(0, 0, *passes)
        if failures:
            raise PeerError(FAILED)
        return totals


ALONE = Processes()


def launched() -> Processes:
    """The processes that a launcher started, from its environment variables; else ``ALONE``."""
    if not {"RANK", "WORLD_SIZE", "LOCAL_RANK", "MASTER_ADDR"} <= os.environ.keys():
        return ALONE
    rank, count, local = (int(os.environ[k]) for k in ("RANK", "WORLD_SIZE", "LOCAL_RANK"))
    return Processes(rank, count, local) if count > 1 else ALONE


def _reducible(tensor: Tensor) -> Tensor:
    """The tensor, or a copy where the backends cannot work in place."""
    if tensor.device.type not in ("cpu", "cuda"):
        tensor = tensor.cpu()
    return tensor.contiguous()


def _exchange(failed: int, own_error: int, *passes: int) -> list[int]:
    """The sums of some integers over the processes. It is always the same number of them, so that
    calls from different places match."""
    totals = torch.zeros(2 + len(KINDS_OF_WORK), dtype=torch.int64)
    values = (failed, own_error, *passes)
    totals[: len(values)] = torch.tensor(values)
    _sum([totals])
    return totals.tolist()


def _sum(tensors: Sequence[Tensor]) -> None:
    """Sum tensors in place, without an exchange.

    Raises:
        PeerError: the connection is lost.
    """
    reduced = [_reducible(tensor) for tensor in tensors]
    try:
        works = [distributed.all_reduce(tensor, async_op=True) for tensor in reduced]
        for work in works:
            assert work is not None, "this process belongs to the group"
            work.wait()
    except RuntimeError as error:
        raise PeerError(f"the connection to another process was lost ({error})") from error
    for tensor, total in zip(tensors, reduced, strict=True):
        if total is not tensor:
            tensor.copy_(total)
