"""The line of cells in a database: workers that share it, die, are stopped, or come too late."""

import os
import shutil
import signal
import socket
import sqlite3
import subprocess
import sys
import tempfile
import threading
import time
from contextlib import closing, contextmanager
from functools import partial
from importlib import import_module
from pathlib import Path
from textwrap import dedent

import pytest
from optuna.trial import TrialState
from sqlalchemy import event

from helpers.example_runs import EXAMPLES, imported

WORKER = """
    import os, sys, time
    from functools import partial

    sys.path.insert(0, sys.argv[1])
    from experiments.line import Queue, open_storage, work

    url, log, seconds, *cells = sys.argv[2:]


    def compute(cell):
        with open(log, "a") as file:
            file.write(f"{cell}\\n")
        time.sleep(float(seconds))
        return {"cell": cell, "by": os.getpid(), "minutes": 0.0}


    queue = Queue(open_storage(url, grace=3), "cells")
    work({queue: {cell: partial(compute, cell) for cell in cells}}, pause=0.2)
"""
FOREVER = 600
CELLS = ["a", "b", "c", "d", "e", "f"]


@pytest.fixture(scope="module")
def line():
    with imported("experiments.line") as module:
        yield module


@pytest.fixture(scope="module")
def postgresql():
    """A server that listens on this machine alone, for as long as the module's tests run."""
    found = shutil.which("initdb") or next(iter(sorted(Path("/usr/lib/postgresql").glob("*/bin/initdb"))), None)
    if found is None:
        pytest.skip("no PostgreSQL server on this machine (initdb)")
    programs, home = Path(found).parent, Path(tempfile.mkdtemp())
    user = "nobody" if os.getuid() == 0 else None  # the server refuses to be root
    if user:
        shutil.chown(home, user)
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    run = partial(subprocess.run, check=True, capture_output=True, user=user, cwd=home)
    run([programs / "initdb", "-D", home / "data", "-U", "semipyro", "-A", "trust", "-N"])
    options = f"-p {port} -c listen_addresses=127.0.0.1 -c unix_socket_directories={home} -c fsync=off"
    control = [programs / "pg_ctl", "-D", home / "data", "-w"]
    subprocess.run([*control, "-o", options, "-l", home / "log", "start"], check=True, user=user, cwd=home)
    yield f"postgresql+psycopg2://semipyro@127.0.0.1:{port}/postgres"
    run([*control, "-m", "immediate", "stop"])
    shutil.rmtree(home)


@pytest.fixture(params=["sqlite", "postgresql"])
def url(request, tmp_path):
    return f"sqlite:///{tmp_path / 'cells.db'}" if request.param == "sqlite" else request.getfixturevalue("postgresql")


@pytest.fixture
def queue(line, tmp_path):
    return line.Queue(line.open_storage(f"sqlite:///{tmp_path / 'cells.db'}", grace=3), "cells")


@pytest.fixture
def started(tmp_path):
    """Starts a worker as a process."""
    script, log = tmp_path / "worker.py", tmp_path / "log"
    script.write_text(dedent(WORKER))

    @contextmanager
    def start(url, seconds, cells):
        process = subprocess.Popen([sys.executable, "-W", "error", script, EXAMPLES, url, log, str(seconds), *cells])
        try:
            yield process
        finally:
            process.kill()
            process.wait()

    return start


def taken(folder, cell):
    """How often a worker has taken a cell."""
    log = folder / "log"
    return log.read_text().split().count(cell) if log.exists() else 0


def wait_for(what, seconds=60):
    deadline = time.monotonic() + seconds
    while not what():
        assert time.monotonic() < deadline
        time.sleep(0.05)


def ask(queue):
    """Takes a cell and does nothing with it, not even the heartbeats, of which Optuna reminds."""
    with pytest.warns(UserWarning, match="Heartbeat of storage"):
        return queue.study.ask()


def finished(queue):
    """How many trials of each cell have a record."""
    trials = [trial for trial in queue.study.get_trials() if trial.state == TrialState.COMPLETE]
    return {cell: sum(trial.user_attrs["cell"] == cell for trial in trials) for cell in CELLS}


def test_two_workers_share_the_cells_and_each_is_computed_once(line, started, url, tmp_path):
    with started(url, 0.3, CELLS) as first, started(url, 0.3, CELLS) as second:
        assert (first.wait(120), second.wait(120)) == (0, 0)
    assert {cell: taken(tmp_path, cell) for cell in CELLS} == dict.fromkeys(CELLS, 1)
    queue = line.Queue(line.open_storage(url), "cells")
    assert finished(queue) == dict.fromkeys(CELLS, 1)
    assert {record["by"] for record in queue.records().values()} <= {first.pid, second.pid}


def test_a_killed_worker_s_cell_is_taken_up_by_another(queue, started, tmp_path):
    url = f"sqlite:///{tmp_path / 'cells.db'}"
    with started(url, FOREVER, CELLS) as first:
        wait_for(lambda: taken(tmp_path, "a"))
        with started(url, 0.1, CELLS) as second:
            wait_for(lambda: taken(tmp_path, "f"))
            assert second.poll() is None  # the other's cell is not done, and it waits for what comes of it
            first.send_signal(signal.SIGKILL)
            assert second.wait(120) == 0
    assert finished(queue) == dict.fromkeys(CELLS, 1)
    assert {cell: taken(tmp_path, cell) for cell in CELLS} == dict.fromkeys(CELLS, 1) | {"a": 2}
    assert queue.records()["a"]["by"] == second.pid


def test_nothing_is_lost_when_all_workers_are_killed(queue, started, tmp_path):
    url = f"sqlite:///{tmp_path / 'cells.db'}"
    with started(url, FOREVER, CELLS) as first, started(url, FOREVER, CELLS) as second:
        wait_for(lambda: taken(tmp_path, "a") and taken(tmp_path, "b"))
        first.send_signal(signal.SIGKILL)
        second.send_signal(signal.SIGKILL)
    assert finished(queue) == dict.fromkeys(CELLS, 0)
    with started(url, 0.1, CELLS) as third:
        assert third.wait(120) == 0
    assert finished(queue) == dict.fromkeys(CELLS, 1)


def test_a_worker_that_died_before_its_first_sign_of_life_is_found_out(line, queue):
    queue.put(["a"])
    ask(queue)
    start = time.monotonic()
    work(line, queue, ["a"], record)
    assert time.monotonic() - start > 2
    assert finished(queue)["a"] == 1


def work(line, queue, cells, compute):
    line.work({queue: {cell: partial(compute, cell) for cell in cells}}, pause=0.05)


def record(cell):
    return {"cell": cell, "minutes": 0.0}


def test_a_cell_that_stands_in_the_line_twice_is_computed_once(line, queue):
    for _ in range(2):
        queue.study.enqueue_trial({}, user_attrs={"cell": "a"})
    computed = []
    work(line, queue, ["a"], lambda cell: computed.append(cell) or record(cell))
    assert computed == ["a"]
    assert queue.records() == {"a": record("a")}


def test_a_cell_that_is_done_is_not_put_in_the_line_again(line, queue):
    work(line, queue, ["a"], record)
    queue.put(["a"], again=True)
    assert queue.open(["a"]) == []
    assert len(queue.study.get_trials()) == 1


def test_an_error_is_kept_and_the_other_cells_go_on(line, queue):
    def compute(cell):
        if cell == "a":
            raise ValueError("no such data")
        return record(cell)

    work(line, queue, ["a", "b"], compute)
    assert queue.errors() == {"a": "ValueError: no such data"}
    assert set(queue.records()) == {"b"}
    queue.put(["a"], again=True)  # the next command
    work(line, queue, ["a"], record)
    assert set(queue.records()) == {"a", "b"}


def test_a_cell_that_was_stopped_goes_back_in_the_line(line, queue):
    for stopped in (KeyboardInterrupt, SystemExit) * 2:

        def compute(cell, stopped=stopped):
            raise stopped

        with pytest.raises(KeyboardInterrupt):
            work(line, queue, ["a"], compute)
    assert queue.open(["a"]) == ["a"]
    work(line, queue, ["a"], record)
    assert set(queue.records()) == {"a"}


def test_a_cell_that_kills_its_workers_is_left_after_a_few_tries(line, queue):
    for _ in range(line.TRIES):
        assert queue.open(["a"]) == ["a"]
        queue.put(["a"])
        queue.study.tell(ask(queue).number, state=TrialState.FAIL)
    assert queue.open(["a"]) == []
    queue.put(["a"], again=True)  # the next command
    assert queue.open(["a"]) == ["a"]


def test_a_worker_that_was_taken_for_dead_does_no_harm(line, queue):
    """A laptop that slept: its trial is failed, another has the cell, and then it wakes."""

    def compute(cell):
        mine = queue.study.get_trials(states=[TrialState.RUNNING])[-1]
        if mine.number == 0:
            queue.study.tell(mine.number, state=TrialState.FAIL)
        return {**record(cell), "trial": mine.number}

    work(line, queue, ["a"], compute)
    assert finished(queue)["a"] == 1
    assert queue.records()["a"]["trial"] == 1


def test_workers_take_cells_of_the_next_experiment_while_others_finish_the_first(line, tmp_path):
    storage = line.open_storage(f"sqlite:///{tmp_path / 'cells.db'}", grace=3)
    first, second = line.Queue(storage, "first"), line.Queue(storage, "second")
    first.put(["a"])
    held = ask(first)  # by another worker
    order = []

    def compute(name):
        order.append(name)
        if name == "second b":
            held.set_user_attr("record", record("a"))
            first.study.tell(held, 0.0)
        return record(name)

    line.work({first: {"a": partial(compute, "first a")}, second: {"b": partial(compute, "second b")}}, pause=0.05)
    assert order == ["second b"]


def test_a_store_that_cannot_be_written_is_refused(line, tmp_path):
    line.Queue(line.open_storage(f"sqlite:///{tmp_path / 'cells.db'}"), "cells")
    storage = line.open_storage(f"sqlite:///file:{tmp_path / 'cells.db'}?mode=ro&uri=true")
    with pytest.raises(ValueError, match=r"--store sqlite:.*readonly"):
        line.Queue(storage, "others")


def test_the_cells_of_another_command_stay_in_the_line(line, queue):
    """A worker that waits for its own cell, which another has, does not empty the line of the others' cells."""
    queue.put(["a"])
    ask(queue)
    queue.put(["b"])
    assert not queue.take({"a": partial(record, "a")})
    assert [trial.state for trial in queue.study.get_trials()] == [TrialState.RUNNING, TrialState.WAITING]
    work(line, queue, ["b"], record)
    assert set(queue.records()) == {"b"}


@pytest.mark.parametrize("url", ["nonsense", "sqlite:////no/such/folder/cells.db", "postgresql://127.0.0.1:1/none",
                                 "mysql://nobody@nowhere/none"])  # fmt: skip
def test_a_store_that_is_not_there_is_refused(line, url, monkeypatch):
    monkeypatch.setattr(line, "PAUSE", 0.0)
    with pytest.raises(ValueError, match=f"^--store {url}: [^\n]+$"):
        line.open_storage(url)


@contextmanager
def changed(path):
    """A connection whose changes are kept, and which is closed."""
    with closing(sqlite3.connect(path)) as file, file as connection:
        yield connection


def of_schema(path, version):
    import_module("experiments.line").open_storage(f"sqlite:///{path}")
    with changed(path) as connection:
        connection.execute("UPDATE alembic_version SET version_num = ?", (version,))


def of_another_program(path):
    with changed(path) as connection:
        connection.execute("CREATE TABLE studies (title TEXT)")


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (Path.mkdir, "unable to open database file"),
        (lambda path: path.write_text("{}"), "file is not a database"),
        (lambda path: path.write_bytes(b"cells" * 1000), "file is not a database"),
        (partial(of_schema, version="v99"), "no longer compatible with the table schema.*updating optuna"),
        (partial(of_schema, version="v2.6.0.a"), "no longer compatible with the table schema.*optuna storage upgrade"),
        (of_another_program, "studies has no column named study_name"),
    ],
    ids=["folder", "JSON", "bytes", "newer", "older", "another program's"],
)
def test_a_file_that_is_no_store_is_refused(line, tmp_path, monkeypatch, make, message):
    monkeypatch.setattr(line, "PAUSE", 0.0)
    make(tmp_path / "cells.db")
    with pytest.raises(ValueError, match=f"^--store sqlite:[^\n]*: [^\n]*{message}[^\n]*$"):
        line.Queue(line.open_storage(f"sqlite:///{tmp_path / 'cells.db'}"), "cells")


def test_a_store_may_lie_in_a_folder_with_braces(line, tmp_path):
    (tmp_path / "{x}").mkdir()
    line.Queue(line.open_storage(f"sqlite:///{tmp_path / '{x}' / 'cells.db'}"), "cells")
    assert (tmp_path / "{x}" / "cells.db").exists()


def restricted(queue, pragma):
    event.listen(queue.storage.engine, "connect", lambda connection, _: connection.execute(f"PRAGMA {pragma}"))


def replaced(queue, path, make=lambda _: None):
    path.unlink()
    make(path)


def emptied(path):
    with changed(path) as connection:
        for table in ("studies", "trials"):
            connection.execute(f"DELETE FROM {table}")


LOST = {  # what becomes of a store in mid-run, and what its database then says
    "deleted": (replaced, "no such table"),
    "deleted with its folder": (lambda queue, path: shutil.rmtree(path.parent), "unable to open database file"),
    "made anew": (partial(replaced, make=partial(of_schema, version="v3.2.0.a")), "does not exist"),
    "a folder": (partial(replaced, make=Path.mkdir), "unable to open database file"),
    "overwritten": (partial(replaced, make=lambda path: path.write_bytes(b"cells" * 1000)), "file is not a database"),
    "emptied": (lambda queue, path: emptied(path), "does not exist"),
    "read-only": (lambda queue, path: restricted(queue, "query_only = 1"), "attempt to write a readonly database"),
    "full": (lambda queue, path: restricted(queue, "max_page_count = 1"), "database or disk is full"),
}


@pytest.mark.reliability
@pytest.mark.parametrize("how", LOST)
def test_a_store_that_is_lost_in_mid_run_ends_it_with_one_line(line, tmp_path, how):
    (tmp_path / "store").mkdir()
    path = tmp_path / "store" / "cells.db"
    queue = line.Queue(line.open_storage(f"sqlite:///{path}", grace=3), "cells")
    lose, message = LOST[how]

    def compute(cell):
        lose(queue, path)
        return {**record(cell), "curve": [0.5] * 100_000}

    said = f"^--store sqlite:///{path}: [^\n]*{message}[^\n]*; it must stay, and be writable, until the command ends"
    with pytest.raises(ValueError, match=said), line.answering(queue.storage.url):
        work(line, queue, ["a", "b"], compute)


def test_an_error_that_is_not_the_store_s_stays_what_it_is(line):
    with pytest.raises(KeyError, match="x"), line.answering("sqlite:///cells.db"):
        raise KeyError("x")


def test_a_sign_of_life_that_the_store_does_not_take_is_left_out(queue):
    restricted(queue, "query_only = 1")
    queue.storage.record_heartbeat(1)


AHEAD = "2999-01-01 00:00:00"  # of a clock that was set back since


def dead(queue, cell, sign):
    """A cell whose worker died after its last sign of life."""
    queue.put([cell])
    trial = ask(queue)
    queue.storage.record_heartbeat(trial._trial_id)
    with queue.storage.engine.begin() as connection:
        connection.exec_driver_sql(
            f"UPDATE trial_heartbeats SET heartbeat = '{sign}' WHERE trial_id = {trial._trial_id}"
        )


@contextmanager
def living(queue, cell):
    """A worker that computes a cell until the block ends."""
    began, ends = threading.Event(), threading.Event()

    def compute():
        began.set()
        ends.wait()
        return record(cell)

    queue.put([cell])
    thread = threading.Thread(target=queue.take, args=({cell: compute},))
    thread.start()
    try:
        assert began.wait(60)
        yield
    finally:
        ends.set()
        thread.join()


@pytest.mark.reliability
def test_a_clock_that_was_set_back_holds_no_cell_up(line, tmp_path):
    """Optuna by itself waits for the clock to catch up."""
    queue = line.Queue(line.open_storage(f"sqlite:///{tmp_path / 'cells.db'}", grace=1), "cells")
    dead(queue, "a", AHEAD)
    work(line, queue, ["a"], record)
    assert queue.records() == {"a": record("a")}


@pytest.mark.reliability
def test_cells_are_given_back_of_dead_workers_alone(line, tmp_path):
    queue, other = (line.Queue(line.open_storage(f"sqlite:///{tmp_path / 'cells.db'}", grace=4), "cells") for _ in "ab")
    with living(other, "c"):
        dead(queue, "a", AHEAD)
        dead(queue, "b", "2000-01-01 00:00:00")
        assert line.give_back([queue], 4) == {queue: ["a", "b"]}
        assert set(queue.running().values()) == {"c"}
    assert set(queue.records()) == {"c"}
    work(line, queue, ["a", "b"], record)
    assert set(queue.records()) == {"a", "b", "c"}


def test_nothing_is_waited_for_where_no_cell_is_taken(line, queue, monkeypatch):
    monkeypatch.setattr(line.time, "sleep", lambda _: pytest.fail("waited"))
    assert line.give_back([queue], 600) == {queue: []}
