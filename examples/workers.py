"""Processes that compute while this one tells how far they are."""

import multiprocessing
import os
import signal
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from multiprocessing.process import BaseProcess
from typing import Any

import torch


@contextmanager
def started(target: Callable[..., None], arguments: Sequence[tuple[Any, ...]]) -> Iterator[list[BaseProcess]]:
    """A process for each tuple of arguments; none of them outlives the block, also where SIGTERM ends it."""
    before = signal.signal(signal.SIGTERM, lambda *_: sys.exit())
    context = multiprocessing.get_context("spawn")
    processes = [context.Process(target=target, args=own) for own in arguments]
    try:
        for process in processes:
            process.start()
        yield list(processes)
    finally:
        for process in processes:
            process.terminate()
            process.join()
        signal.signal(signal.SIGTERM, before)


def share_cores(jobs: int) -> None:
    """Gives this process its share of the machine's cores."""
    torch.set_num_threads(max(1, (os.cpu_count() or 1) // jobs))


def is_wanted() -> bool:
    """Whether the command that started this process still runs."""
    parent = multiprocessing.parent_process()
    return parent is None or parent.is_alive()
