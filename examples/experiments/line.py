"""Cells are handed to workers by an Optuna study in a database, so that each is computed once, wherever workers run.

A study holds the cells of one experiment and budget, a trial each. A worker takes the next that waits, and while it
computes, a thread of Optuna's says so in the database every few seconds. When that stops, the trial counts as failed
after a while, and the cell is put in the line again. How long a while is, both the database's clock and that of the
waiting worker say, so that a clock that was set back holds nobody up. Two commands that start at once may put the same
cell in the line twice; of those only the first is computed.
"""

import contextlib
import time
import warnings
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any

import optuna
from optuna.exceptions import ExperimentalWarning, StorageInternalError, UpdateFinishedTrialError
from optuna.storages import RDBStorage, fail_stale_trials
from optuna.trial import FrozenTrial, Trial, TrialState
from sqlalchemy import Connection, Engine, NullPool, event, text
from sqlalchemy.exc import SQLAlchemyError

from .base import Record

LIVE = (TrialState.WAITING, TrialState.RUNNING, TrialState.COMPLETE)
TRIES = 3  # of a cell whose worker died; then it is left
SIGNS = """
    SELECT trials.number, trial_heartbeats.heartbeat FROM trials
    JOIN studies ON studies.study_id = trials.study_id
    LEFT JOIN trial_heartbeats ON trial_heartbeats.trial_id = trials.trial_id
    WHERE studies.study_name = :name AND trials.state = 'RUNNING'
"""
GRACE = 60  # seconds
PAUSE = 1.0  # seconds between two tries to open a database
GONE = ("Record does not exist.",)  # what Optuna's KeyError says of a study or a trial that the database has no more


class CellError(Exception):
    """What a cell ended with, which is kept with its trial."""


class Storage(RDBStorage):
    """Optuna's storage, whose workers go on where the database does not take a sign of life: they give the next."""

    def record_heartbeat(self, trial_id: int) -> None:
        """Says in the database that the worker of a trial lives."""
        with contextlib.suppress(SQLAlchemyError, StorageInternalError):
            super().record_heartbeat(trial_id)


def open_storage(url: str, grace: int = GRACE) -> Storage:
    """The database at any URL that Optuna takes, such as `sqlite:///cells.db` or `postgresql://…`.

    A worker without a heartbeat for `grace` seconds is taken for dead.

    Raises:
        ValueError: a URL that leads nowhere, to another kind of file, or to a database of another version of Optuna's,
            with the reason.
    """
    # SQLite's connections are closed after use, and not kept for a next one
    connect = {"connect_args": {"timeout": 60}, "poolclass": NullPool} if url.startswith("sqlite") else {}
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    for last in (False, False, True):  # of workers that start at once, one makes the tables and the others stumble
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore", ExperimentalWarning)  # heartbeats, which Optuna has had since 2.9
                storage = Storage(url.replace("{", "{{").replace("}", "}}"), engine_kwargs=connect,
                                  heartbeat_interval=max(1, grace // 6), grace_period=grace)  # fmt: skip
            if connect:
                lock_at_once(storage.engine)
            return storage
        except Exception as error:  # SQLAlchemy's, Alembic's, Optuna's, the driver's, and that there is no driver
            if last or not isinstance(error, SQLAlchemyError):
                raise ValueError(f"--store {url}: {first_line(reason(error) or error)}") from error
            time.sleep(PAUSE)
    raise AssertionError


@contextlib.contextmanager
def answering(url: str) -> Iterator[None]:
    """Ends with a ValueError of one line where the database fails, whatever Optuna makes of that.

    A database can be deleted, become read-only or full while a command runs.
    """
    try:
        yield
    except ValueError:  # such as that of `open_storage`
        raise
    except Exception as error:  # Optuna wraps the database's in errors of its own; all others are raised again
        if (said := reason(error)) is None:
            raise
        raise ValueError(f"--store {url}: {first_line(said)}; it must stay, and be writable, until the command ends: "
                         "start it again, which goes on with what is left") from error  # fmt: skip


def reason(error: BaseException | None) -> BaseException | None:
    """What the database said, where that is what lies behind an error."""
    while error is not None and not isinstance(error, SQLAlchemyError) and error.args != GONE:
        error = error.__cause__ or error.__context__
    return error


def first_line(error: BaseException) -> str:
    """The first line of an error, or its type where it says nothing."""
    return next(iter(str(error).splitlines()), type(error).__name__)


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


def open_study(storage: Storage, name: str, **keywords: Any) -> optuna.Study:
    """The study of this name in a database, made if there is none; a ValueError where it cannot be written."""
    try:
        return optuna.create_study(study_name=name, storage=storage, load_if_exists=True, **keywords)
    except StorageInternalError as error:
        raise ValueError(f"--store {storage.url}: {first_line(reason(error) or error)}") from error


class Queue:
    """The cells of one experiment and budget, in the line of a database."""

    def __init__(self, storage: Storage, name: str) -> None:
        self.storage = storage
        self.study = open_study(storage, name)
        self._since: dict[tuple[int, Any], float] = {}  # trial and sign of life → when that sign was first seen

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
        self.fail_the_dead()
        self.put(left)
        if not any(trial.state == TrialState.WAITING and trial.user_attrs.get("cell") in left
                   for trial in self._trials()):  # fmt: skip
            return False
        # Optuna's own errors, not the cell's: this process slept, was taken for dead, and another had the cell
        with contextlib.suppress(UpdateFinishedTrialError, ValueError):
            self.study.optimize(lambda trial: self._try(trial, cells), n_trials=1, catch=(CellError,))
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

    def running(self) -> dict[int, str]:
        """The cells that workers have, by trial."""
        return {trial.number: trial.user_attrs.get("cell", "") for trial in self._trials()
                if trial.state == TrialState.RUNNING}  # fmt: skip

    def fail_the_dead(self) -> None:
        """Ends the trials whose workers have not been heard of for a while, so that their cells can be put back.

        Optuna goes by the database's clock, and passes over workers that died before their first heartbeat, in the
        milliseconds after they took a cell. Here a trial ends too when its last heartbeat, if any, has stayed the same
        for that while since this process saw it first, whatever the clock says.
        """
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", ExperimentalWarning)  # of heartbeats, as above
            fail_stale_trials(self.study)
        with self.storage.engine.connect() as connection:
            signs = connection.execute(text(SIGNS), {"name": self.study.study_name}).all()
        now = time.monotonic()
        self._since = {(number, sign): self._since.get((number, sign), now) for number, sign in signs}
        for (number, _), since in self._since.items():
            if now - since > (self.storage.grace_period or GRACE):
                with contextlib.suppress(ValueError):  # another worker was faster
                    self.study.tell(number, state=TrialState.FAIL)

    def was_dead(self, number: int) -> bool:
        """Whether a trial ended because its worker was not heard of, and not by the worker itself."""
        trial = self._trials()[number]
        return trial.state == TrialState.FAIL and not {"error", "stopped"} & trial.user_attrs.keys()

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
        except Exception as error:  # whatever ends a cell is kept with its trial, and the other cells go on
            trial.set_user_attr("error", f"{type(error).__name__}: {error}")
            raise CellError from error
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


def give_back(queues: Sequence[Queue], grace: float) -> dict[Queue, list[str]]:
    """Takes cells from workers that gave no sign of life for `grace` seconds of this process's; they wait again.

    Returns the cells of each line.
    """
    before = {queue: queue.running() for queue in queues}
    for queue in queues:
        queue.fail_the_dead()
    if any(queue.running() for queue in queues):
        time.sleep(grace + PAUSE)
    for queue in queues:
        queue.fail_the_dead()
    return {queue: [cell for number, cell in own.items() if queue.was_dead(number)] for queue, own in before.items()}
