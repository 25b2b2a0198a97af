"""What every test stands on: seeded torch, an empty parameter store, the checkout's files and the data sets."""

import os
import sys
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from types import ModuleType

import pyro
import pytest
import torch
from hypothesis import settings
from semipyro.files import write_between

from helpers.counts import MARKS, table

os.environ.setdefault("MPLBACKEND", "Agg")  # figures are written, never shown
os.environ.setdefault("OMP_NUM_THREADS", "1")  # for the processes that tests start; small tensors gain nothing by more
torch.set_num_threads(1)

TRIES = 100  # of what is tried at random, where a run does not ask for more
ROOT = Path(__file__).resolve().parent.parent
GENERATED = {"__pycache__", "build", "dist", "runs"}
LONGEST = {"test_reproduce.py", "test_examples_papers.py", "test_examples.py", "test_notebooks.py", "test_docs.py"}


def pytest_addoption(parser: pytest.Parser) -> None:
    """`pytest -m reliability --tries 1000` tries harder than every run does."""
    parser.addoption("--tries", type=int, default=TRIES, help="random cases of each kind in tests of reliability")
    parser.addoption("--counts", type=Path, help="a page that receives the table of what they counted")


def pytest_configure(config: pytest.Config) -> None:
    """Hypothesis draws the same cases in every run, as many as `--tries` says, and takes the time that they need."""
    settings.register_profile("semipyro", max_examples=config.getoption("tries"), derandomize=True, deadline=None)
    settings.load_profile("semipyro")


def pytest_terminal_summary(terminalreporter: "pytest.TerminalReporter", config: pytest.Config) -> None:
    """Writes the table of what was counted, where `--counts` names a page."""
    if config.getoption("counts") is not None:
        passed = terminalreporter.stats.get("passed", [])
        counted = [value for report in passed for name, value in report.user_properties if name == "counted"]
        write_between(config.getoption("counts"), MARKS, table(counted))


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Files that take minutes come first where workers share the tests, so that none has one left at the end."""
    if hasattr(config, "workerinput"):
        items.sort(key=lambda item: item.path.name not in LONGEST)


def _files(folder: Path) -> Iterator[Path]:
    """Files under `folder` that people wrote: no environments, builds, caches or runs."""
    for path in sorted(folder.iterdir()):
        hidden = path.name.startswith(".") and path.name not in {".ci", ".github", ".gitignore"}
        if hidden or path.name in GENERATED or path.suffix == ".egg-info" or path == ROOT / "shared":
            continue
        if path.is_file():
            yield path
        elif path.is_dir() and not (path / "pyvenv.cfg").exists():
            yield from _files(path)


@pytest.fixture(scope="session")
def tries(request: pytest.FixtureRequest) -> int:
    """How many random cases of each kind a test of reliability tries."""
    return int(request.config.getoption("tries"))


@pytest.fixture
def counted(record_property: Callable[[str, object], None]) -> Callable[[str, Mapping[str, int]], None]:
    """`counted(what, found)` says how often each thing came of what was tried, for the table of `--counts`."""
    return lambda what, found: record_property("counted", (what, dict(found)))


@pytest.fixture(scope="session")
def root() -> Path:
    """The checkout."""
    return ROOT


@pytest.fixture(scope="session")
def source_files() -> list[Path]:
    """Every file of the checkout that people wrote."""
    return list(_files(ROOT))


@pytest.fixture(scope="session")
def data_root() -> Path:
    """The folder with the downloaded data sets; tests that need one are skipped where there is none."""
    named = os.environ.get("SEMIPYRO_DATA")
    folder = Path(named) if named else ROOT.parent / "shared" / "data"
    if not folder.is_dir():
        pytest.skip(
            f"no data sets at {folder}: set SEMIPYRO_DATA to a folder that holds MNIST/raw, FashionMNIST/raw and "
            "omniglot, as torchvision.datasets.MNIST(root, download=True) and its like write them"
        )
    return folder


@pytest.fixture
def float64() -> Iterator[None]:
    """Networks and numbers in double precision, where a test asks for equality to rounding."""
    default = torch.get_default_dtype()
    torch.set_default_dtype(torch.float64)
    yield
    torch.set_default_dtype(default)


@pytest.fixture
def fake_torchvision(monkeypatch: pytest.MonkeyPatch) -> Callable[..., None]:
    """Puts a torchvision in the real one's place: `fake_torchvision(MNIST=download)` is called as a data set is."""

    def put(**datasets: Callable[..., object]) -> None:
        package, module = ModuleType("torchvision"), ModuleType("torchvision.datasets")
        vars(module).update(datasets)
        monkeypatch.setitem(sys.modules, "torchvision", package)
        monkeypatch.setitem(sys.modules, "torchvision.datasets", module)

    return put


@pytest.fixture(autouse=True)
def _seeded_and_storeless() -> Iterator[None]:
    """Every test draws the same numbers, and none leaves a parameter in Pyro's store, where it would not be trained."""
    torch.manual_seed(0)
    yield
    names = list(pyro.get_param_store().keys())
    pyro.clear_param_store()
    assert not names, f"parameters in Pyro's store: {names}; models and guides are plain torch modules"
