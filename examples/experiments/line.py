"""Cells are handed to workers by an Optuna study in a database, so that each is computed once, wherever workers run.

A study holds the cells of one experiment and budget, a trial each. A worker takes the next that waits, and while it
computes, a thread of Optuna's says so in the database every few seconds. When that stops, the trial counts as failed
after a while, and the cell is put in the line again. Two commands that start at once may put the same cell in the line
twice; of those only the first is computed.
"""

import contextlib
import time
import warnings
from collections.abc import Callable, Iterable, Mapping, Sequence
from datetime import datetime, timedelta
from typing import Any

import optuna
from optuna.exceptions import ExperimentalWarning, StorageInternalError, UpdateFinishedTrialError
from optuna.storages import RDBStorage, fail_stale_trials
from optuna.trial import FrozenTrial, Trial, TrialState
from sqlalchemy import Connection, Engine, event, text
from sqlalchemy.exc import SQLAlchemyError

from .base import Record

LIVE = (TrialState.WAITING, TrialState.RUNNING, TrialState.COMPLETE)
TRIES = 3  # of a cell whose worker died; then it is left
SILENT = """
    SELECT trials.number FROM trials JOIN studies ON studies.study_id = trials.study_id
    LEFT JOIN trial_heartbeats ON trial_heartbeats.trial_id = trials.trial_id
    WHERE studies.study_name = :name AND trials.state = 'RUNNING' AND trial_heartbeats.trial_id IS NULL
"""
GRACE = 60  # seconds


def open_storage(url: str, grace: int = GRACE) -> RDBStorage:
    """The database at any URL that Optuna takes, such as `sqlite:///cells.db` or `postgresql://…`.

    A worker without a heartbeat for `grace` seconds is taken for dead.

    Raises:
        ValueError: a URL that leads nowhere, with the reason.
    """
    connect = {"connect_args": {"timeout": 60}} if url.startswith("sqlite") else {}
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    for last in (False, False, True):  # of workers that start at once, one makes the tables and the others stumble
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore", ExperimentalWarning)  # heartbeats, which Optuna has had since 2.9
                storage = RDBStorage(
                    url, engine_kwargs=connect, heartbeat_interval=max(1, grace // 6), grace_period=grace
                )
            if connect:
                lock_at_once(storage.engine)
            return storage
        except (SQLAlchemyError, ImportError) as error:
            if last:
                raise ValueError(f"--store {url}: {str(error).splitlines()[0]}") from error
            time.sleep(1)
    raise AssertionError


def lock_at_once(engine: Engine) -> None:
    """Lets every transaction of SQLite's begin with the lock that it needs to write.

    As it comes, SQLite locks at the first write, so that two workers could both read that a trial waits, and take it.
    """

    @event.listens_for(engine, "connect")
    def leave_it_to_us(connection: Any, record: Any) -> None:
        connection.isolation_level = None

    @event.listens_for(engine, "begin")
    def begin(connection: Connection) -> None:
        connection.exec_driver_sql("BEGIN IMMEDIATE")

    engine.dispose()  # connections from before


def open_study(storage: RDBStorage, name: str, **keywords: Any) -> optuna.Study:
    """The study of this name in a database, made if there is none; a ValueError where it cannot be written."""
    try:
        return optuna.create_study(study_name=name, storage=storage, load_if_exists=True, **keywords)
    except StorageInternalError as error:
        raise ValueError(f"--store {storage.url}: {str(error.__cause__ or error).splitlines()[0]}") from error


class Queue:
    """The cells of one experiment and budget, in the line of a database."""

    def __init__(self, storage: RDBStorage, name: str) -> None:
        self.storage = storage
        self.study = open_study(storage, name)

    def put(self, cells: Sequence[str], *, again: bool = False) -> None:
        """Puts those in the line that no worker has or had; `again`: also those that ended with an error."""
        trials = self._trials()
        for cell in cells:
            own = [trial for trial in trials if trial.user_attrs.get("cell") == cell]
            if not any(trial.state in LIVE for trial in own) and (again or self._may_be_tried(own)):
                self.study.enqueue_trial({}, user_attrs={"cell": cell})

    def take(self, cells: Mapping[str, Callable[[], Record]]) -> bool:
        """Computes the next of these cells that waits; False where none does. Dead workers' cells wait again."""
        if not (left := self.open(cells)):
            return False
        self._fail_the_dead()
        self.put(left)
        if not any(trial.state == TrialState.WAITING and trial.user_attrs.get("cell") in left
                   for trial in self._trials()):  # fmt: skip
            return False
        # Optuna's own errors, not the cell's: this process slept, was taken for dead, and another had the cell
        with contextlib.suppress(UpdateFinishedTrialError, ValueError):
            self.study.optimize(lambda trial: self._try(trial, cells), n_trials=1, catch=(Exception,))
        return True

    def open(self, cells: Iterable[str]) -> list[str]:
        """Those of the cells that are not done, and not given up."""
        trials = self._trials()
        by_cell = {cell: [trial for trial in trials if trial.user_attrs.get("cell") == cell] for cell in cells}
        return [cell for cell, own in by_cell.items()
                if not any(trial.state == TrialState.COMPLETE for trial in own)
                and (any(trial.state in LIVE for trial in own) or self._may_be_tried(own))]  # fmt: skip

    def records(self) -> dict[str, Record]:
        """What was computed, here or elsewhere, by cell."""
        return {trial.user_attrs["cell"]: trial.user_attrs["record"] for trial in self._trials()
                if trial.state == TrialState.COMPLETE}  # fmt: skip

    def errors(self) -> dict[str, str]:
        """The last error of each cell that ended with one."""
        return {trial.user_attrs["cell"]: trial.user_attrs["error"] for trial in self._trials()
                if "error" in trial.user_attrs}  # fmt: skip

    def running(self) -> list[str]:
        """The cells that workers have."""
        return [trial.user_attrs.get("cell", "") for trial in self._trials() if trial.state == TrialState.RUNNING]

    def _fail_the_dead(self) -> None:
        """Ends the trials whose workers have not been heard of for a while.

        Optuna passes over those that died before their first heartbeat, in the milliseconds after they took a cell.
        """
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", ExperimentalWarning)  # of heartbeats, as above
            fail_stale_trials(self.study)
        with self.storage.engine.connect() as connection:
            silent = set(connection.scalars(text(SILENT), {"name": self.study.study_name}))
        before = datetime.now() - timedelta(seconds=self.storage.grace_period or GRACE)
        for trial in self._trials():
            if trial.number in silent and trial.datetime_start is not None and trial.datetime_start < before:
                with contextlib.suppress(ValueError):  # another worker was faster
                    self.study.tell(trial.number, state=TrialState.FAIL)

    def _trials(self) -> list[FrozenTrial]:
        return self.study.get_trials(deepcopy=False)

    def _may_be_tried(self, own: Sequence[FrozenTrial]) -> bool:
        failed = [trial for trial in own if trial.state == TrialState.FAIL and "stopped" not in trial.user_attrs]
        return len(failed) < TRIES and not any("error" in trial.user_attrs for trial in failed)

    def _try(self, trial: Trial, cells: Mapping[str, Callable[[], Record]]) -> float:
        cell = trial.user_attrs.get("cell", "")
        if cell not in cells:
            raise optuna.TrialPruned("another command's cell, which it puts in the line again")
        if not self._is_first(trial.number, cell):
            raise optuna.TrialPruned("another worker was faster")
        try:
            record = cells[cell]()
        except Exception as error:  # whatever it is: kept with the trial, and raised again
            trial.set_user_attr("error", f"{type(error).__name__}: {error}")
            raise
        except (KeyboardInterrupt, SystemExit):
            trial.set_user_attr("stopped", True)  # which is no fault of the cell
            raise KeyboardInterrupt from None  # for which Optuna ends the trial
        trial.set_user_attr("record", record)
        return float(record["minutes"])

    def _is_first(self, number: int, cell: Any) -> bool:
        """Whether no earlier trial is, or was, the cell's."""
        return not any(trial.user_attrs.get("cell") == cell and trial.state in LIVE and trial.number < number
                       for trial in self._trials())  # fmt: skip


def work(
    lines: Mapping[Queue, Mapping[str, Callable[[], Record]]],
    pause: float = 2.0,
    goes_on: Callable[[], bool] = lambda: True,
) -> None:
    """Computes the cells of several lines, in their order, until none is left that this or another worker has.

    Before each cell `goes_on` is asked whether to go on at all.
    """
    while goes_on():
        if any(queue.take(cells) for queue, cells in lines.items()):
            continue
        if not any(queue.open(cells) for queue, cells in lines.items()):
            return
        time.sleep(pause)
