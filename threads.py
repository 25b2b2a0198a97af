"""One thread at a time: Pyro's handlers and PyTorch's random numbers belong to the process, not to a thread.

Whatever runs Pyro programs or seeds PyTorch does it with `ONE_AT_A_TIME` held: `with ONE_AT_A_TIME: ...`, or
`@ONE_AT_A_TIME` above a function. Two threads without it would see each other's sample sites and draw each other's
numbers.
"""

import os
import threading
from contextlib import ContextDecorator

import torch
from pyro.poutine import runtime


class ProcessLock(ContextDecorator):
    """A reentrant lock for the threads of this process, which a forked child never waits for.

    A child has one thread, the one that forked it. Where another thread held the lock, nobody in the child could give
    it back: there the lock starts free, and Pyro's stack without the handlers that the other thread had put on it.
    PyTorch's own threads are gone as well, and would be waited for: with the lock, a child computes with one.
    """

    def __init__(self) -> None:
        self._lock = threading.RLock()
        self._holders: list[int] = []  # the thread that holds the lock, as many times as it does
        self._forked = False
        if hasattr(os, "register_at_fork"):  # where processes can be forked
            os.register_at_fork(after_in_child=self._leave_other_threads)

    def __enter__(self) -> None:
        if self._forked:
            torch.set_num_threads(1)
            self._forked = False
        self._lock.acquire()
        self._holders.append(threading.get_ident())

    def __exit__(self, *_: object) -> None:
        self._holders.pop()
        self._lock.release()

    def _leave_other_threads(self) -> None:
        self._forked = True
        if threading.get_ident() in self._holders:
            return
        if self._holders:
            runtime._PYRO_STACK.clear()
        self._lock, self._holders = threading.RLock(), []


ONE_AT_A_TIME = ProcessLock()
