"""One process a folder, one thread a process; and a run that was killed at any moment ends with the same numbers."""

import os
import random
import signal
import threading

import pytest
import torch
from semipyro.inference import evaluate, fit, sample

from helpers.processes import EPOCHS, race, started, train
from helpers.training_runs import Line, comparable, line_batches, m2_run, weights

SIGNALS = (signal.SIGKILL, signal.SIGTERM, signal.SIGINT)
BUSY = "ValueError: another process is at work in"


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    """History and weights of a run that never stopped, and how long it took."""
    with started(train, tmp_path_factory.mktemp("whole"), 1) as (_, connection):
        assert connection.recv() == "begins"
        return connection.recv()


@pytest.mark.reliability
def test_a_run_killed_at_any_moment_ends_with_the_same_numbers(tmp_path, tries, counted, whole):
    draw, seconds = random.Random(0), whole[2]
    for number in range(max(3, tries // 50)):
        folder = tmp_path / str(number)
        with started(train, folder, 1) as (process, connection):
            assert connection.recv() == "begins"
            process.join(draw.uniform(0, 0.8 * seconds))
            if process.is_alive():
                os.kill(process.pid, SIGNALS[number % 3])
            process.join(60)
            assert process.exitcode is not None
        objective, rows, held_out = m2_run()
        torch.manual_seed(1)
        history = fit(
            objective, rows, epochs=EPOCHS, validation=held_out, out=folder, resume=folder.exists(), progress=False
        )
        assert (comparable(history), weights(objective).tolist()) == whole[:2], f"killed by {SIGNALS[number % 3]!r}"
    counted("runs killed at a random moment and resumed", {"equal": number + 1})


@pytest.mark.reliability
@pytest.mark.parametrize("resume", [False, True], ids=["two new runs", "two resumed runs"])
def test_of_two_processes_in_one_folder_one_is_refused(tmp_path, tries, counted, resume):
    """The one that is let in ends with its own numbers: the seed says whose they are."""
    settings = {"epochs": 8}  # the slower one must come while the other is at work
    with started(race) as (_, one), started(race) as (_, two):
        for seed, connection in enumerate((one, two)):
            connection.send((tmp_path / f"warm {seed}", seed, {"epochs": 1}))
            assert [connection.recv(), connection.recv()][0] == "begins"
        for number in range(max(2, tries // 50)):
            folder = tmp_path / str(number)
            if resume:
                one.send((folder, 1, {"epochs": 1}))
                assert [one.recv(), one.recv()][0] == "begins"
            for seed, connection in enumerate((one, two)):
                connection.send((folder, seed, settings | ({"resume": True} if resume else {})))
            assert [one.recv(), two.recv()] == ["begins", "begins"]
            results = [one.recv(), two.recv()]
            refused = [result for result in results if isinstance(result, str)]
            assert len(refused) == 1, results
            assert refused[0].startswith(f"{BUSY} {folder}"), refused
            assert len((folder / "metrics.csv").read_text().splitlines()) == 9
        one.send(None)
        two.send(None)
    counted(f"races of two {'resumed' if resume else 'new'} runs in one folder", {"one refused": number + 1})


def test_a_folder_is_free_again_after_an_error(tmp_path):
    with pytest.raises(ValueError, match="batches gave no batch"):
        fit(Line(), [], epochs=1, out=tmp_path, progress=False)
    assert list(tmp_path.iterdir()) == []
    assert len(fit(Line(), line_batches(), epochs=1, out=tmp_path, progress=False)) == 1


def test_a_fit_inside_a_fit_has_a_folder_of_its_own(tmp_path):
    """In a callback, such as one that tries something out: the lock is not in its own thread's way."""

    def inside(row):
        fit(Line(), line_batches(), epochs=1, out=tmp_path / f"inside {row['epoch']}", progress=False)
        with pytest.raises(ValueError, match="another process is at work"):
            fit(Line(), line_batches(), epochs=1, out=tmp_path / "outside", resume=True, progress=False)

    fit(Line(), line_batches(), epochs=2, out=tmp_path / "outside", report=inside, progress=False)


def test_threads_take_turns():
    """They end with the numbers of as many fits one after the other, though all share handlers and random numbers."""

    def run(objective, rows, held_out):
        history = fit(objective, rows, epochs=2, validation=held_out, progress=False)
        found.append((comparable(history), weights(objective).tolist()))

    count, found, runs = 3, [], [m2_run() for _ in range(6)]
    torch.manual_seed(1)
    for parts in runs[:count]:
        run(*parts)
    torch.manual_seed(1)
    threads = [threading.Thread(target=run, args=parts) for parts in runs[count:]]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert found[count:] == found[:count]


def test_what_else_runs_pyro_waits_for_a_fit_in_another_thread():
    objective, rows, held_out = m2_run()
    other, _, (x, y) = m2_run()
    expected = evaluate(other, x, y).keys()
    measured, done = [], threading.Event()

    def measure():
        while not done.is_set():
            measured.append(evaluate(other, x, y).keys() == expected and len(sample(other.model, 3)) == 3)

    thread = threading.Thread(target=measure)
    thread.start()
    fit(objective, rows, epochs=1, validation=held_out, progress=False)
    done.set()
    thread.join()
    assert measured
    assert all(measured)
