"""Processes that train, to be killed, raced and forked. They begin with everything imported, in a tenth of a second."""

import multiprocessing
import sys
import time
from contextlib import contextmanager

import torch
from semipyro.inference import fit

from .training_runs import comparable, m2_run, weights

EPOCHS = 4


@contextmanager
def started(target, *arguments):
    """A process that runs `target(connection, *arguments)`, and our end of the connection. It ends with the block."""
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["semipyro.inference.training.loop", "semipyro.papers"])
    ours, theirs = context.Pipe()
    process = context.Process(target=quietly, args=(target, theirs, *arguments))
    process.start()
    theirs.close()
    try:
        yield process, ours
    finally:
        process.kill()
        process.join()


def quietly(target, *arguments):
    """Runs the target without the traceback of what a signal ends it with."""
    torch.set_num_threads(1)
    try:
        target(*arguments)
    except KeyboardInterrupt:
        sys.exit(1)


def train(connection, folder, seed, *, epochs=EPOCHS, **settings):
    """Says that it begins, trains M2 into the folder, and sends history, weights and seconds, or the error."""
    objective, rows, held_out = m2_run()
    torch.manual_seed(seed)
    connection.send("begins")
    start = time.perf_counter()
    try:
        history = fit(objective, rows, epochs=epochs, validation=held_out, out=folder, progress=False, **settings)
        connection.send((comparable(history), weights(objective).tolist(), time.perf_counter() - start))
    except (ValueError, OSError) as error:
        connection.send(f"{type(error).__name__}: {error}")


def race(connection):
    """Trains into each folder that it receives, from the moment on that it receives it, and sends what came of it."""
    while order := connection.recv():
        folder, seed, settings = order
        train(connection, folder, seed, **settings)
