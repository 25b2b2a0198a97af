"""Worker processes, which compute while the process that started them tells how far they are."""

import multiprocessing
import os
import signal
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from multiprocessing.process import BaseProcess
from multiprocessing.queues import SimpleQueue
from typing import Any

import torch

PATIENCE = 30  # seconds that a worker has to leave its work in order


@contextmanager
def started(target: Callable[..., None], arguments: Sequence[tuple[Any, ...]]) -> Iterator[list[BaseProcess]]:
    """Starts a process for each tuple of arguments. None of them outlives the block, even if SIGTERM ends it.

    Ctrl-C reaches this process alone, which stops the others: `target` sees a KeyboardInterrupt.

    Raises:
        ValueError: after the block, what a ValueError or OSError that ended one of them said.
    """
    before = signal.signal(signal.SIGTERM, lambda *_: sys.exit())
    context = multiprocessing.get_context("spawn")
    complaints = context.SimpleQueue()
    processes = [context.Process(target=stoppable, args=(target, own, complaints)) for own in arguments]
    try:
        for process in processes:
            start_without_ctrl_c(process)
        yield list(processes)
    finally:
        for process in processes:
            process.terminate()
        for process in processes:
            process.join(PATIENCE)
            process.kill()
            process.join()
        signal.signal(signal.SIGTERM, before)
    if not complaints.empty():
        raise ValueError(complaints.get())


def start_without_ctrl_c(process: BaseProcess) -> None:
    """Starts a process that ignores SIGINT: a child ignores what its parent ignores while it starts the child."""
    handler = signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        process.start()
    finally:
        signal.signal(signal.SIGINT, handler)


def stoppable(target: Callable[..., None], arguments: Sequence[Any], complaints: "SimpleQueue[str]") -> None:
    """Runs the target. SIGTERM raises KeyboardInterrupt in it, once; what the target then ends with is not shown.

    What a ValueError or OSError says, which a user can mend, is one of the complaints.
    """

    def stop(*_: object) -> None:
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
        raise KeyboardInterrupt

    signal.signal(signal.SIGTERM, stop)
    try:
        target(*arguments)
    except BaseException as error:
        if signal.getsignal(signal.SIGTERM) is signal.SIG_IGN:
            return
        if not isinstance(error, ValueError | OSError):
            raise
        complaints.put(str(error))


def share_cores(jobs: int) -> None:
    """Gives this process its share of the machine's cores."""
    torch.set_num_threads(max(1, (os.cpu_count() or 1) // jobs))


def is_wanted() -> bool:
    """Whether the command that started this process still runs."""
    parent = multiprocessing.parent_process()
    return parent is None or parent.is_alive()
