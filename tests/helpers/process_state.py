"""What a process shares with everything that runs in it, to be compared before and after a call."""

import locale
import logging
import multiprocessing
import os
import random
import signal
import sys
import threading
import warnings
from typing import Any

import numpy as np
import pyro
import torch


def process_state() -> dict[str, str]:
    """Everything by its name; an environment variable and a logger that has a level or a handler by their own."""
    state: dict[str, Any] = {
        "warnings.filters": warnings.filters,
        "warnings.showwarning": warnings.showwarning,
        "signals": {number: signal.getsignal(number) for number in signal.valid_signals()},
        "hooks": (sys.excepthook, sys.unraisablehook, sys.displayhook, threading.excepthook),
        "threads": threading.enumerate(),
        "processes": multiprocessing.active_children(),
        "start method": multiprocessing.get_start_method(allow_none=True),
        "streams": (sys.stdin, sys.stdout, sys.stderr),
        "folder": os.getcwd(),
        "recursion limit": sys.getrecursionlimit(),
        "locale": locale.setlocale(locale.LC_ALL),
        "random": random.getstate(),
        "numpy.random": np.random.get_state()[1].tolist(),  # noqa: NPY002 # the state that everything shares
        "numpy's errors": np.geterr(),
        "numpy's printing": np.get_printoptions(),
        "torch's threads": (torch.get_num_threads(), torch.get_num_interop_threads()),
        "torch's defaults": (torch.get_default_dtype(), torch.get_default_device()),
        "torch's precision": torch.get_float32_matmul_precision(),
        "torch's modes": (
            torch.is_grad_enabled(), torch.is_anomaly_enabled(), torch.are_deterministic_algorithms_enabled(),
            torch.backends.cudnn.benchmark, torch.backends.cudnn.deterministic,
        ),
        "torch's sharing": torch.multiprocessing.get_sharing_strategy(),
        "torch's validation": torch.distributions.Distribution._validate_args,
        "pyro's settings": pyro.settings.get(),
        "pyro's handlers": pyro.poutine.runtime._PYRO_STACK,
        "logging": (logging.getLoggerClass(), logging.root.manager.disable),
    }  # fmt: skip
    loggers = {"root": logging.root, **logging.root.manager.loggerDict}
    for name, logger in loggers.items():
        if isinstance(logger, logging.Logger) and (logger.level or logger.handlers or logger.filters):
            state[f"logger {name}"] = (logger.level, logger.handlers, logger.filters, logger.disabled)
    return {name: repr(value) for name, value in (state | dict(os.environ)).items()}
