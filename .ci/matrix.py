"""Runs the suite with every Python found, with the oldest versions that setup.cfg allows and with the newest.

    python .ci/matrix.py                            every combination that has not passed yet
    python .ci/matrix.py 3.10-oldest 3.13-newest    these

A Python is found on PATH or among those of pyenv. Each combination has an environment of its own, which pip sets up
with its own settings and which is deleted after the run; .matrix/ keeps what pip and pytest printed, and knows what has
passed: `rm -r .matrix` begins afresh. A run's row goes into results/matrix.csv, and the rows into README.md.
"""

import csv
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from xml.etree import ElementTree

ROOT = Path(__file__).resolve().parent.parent
CACHE, TABLE, PAGE = ROOT / ".matrix", ROOT / "results" / "matrix.csv", ROOT / "README.md"
MARKS = ("<!-- matrix -->", "<!-- end of matrix -->")
MINORS, SETS = range(10, 14), ("oldest", "newest")
SHOWN = ("torch", "pyro-ppl", "lightning", "numpy", "scikit-learn")
COLUMNS = ("python", "versions", *SHOWN, "passed", "failed", "skipped", "minutes")


def pythons() -> Iterator[tuple[str, str]]:
    """("3.10", the interpreter) for every one that starts; a shim of pyenv's may not."""
    pyenv = Path(os.environ.get("PYENV_ROOT", Path.home() / ".pyenv"), "versions")
    for minor in MINORS:
        name = f"python3.{minor}"
        for path in (shutil.which(name), *sorted(pyenv.glob(f"3.{minor}.*/bin/{name}"), reverse=True)):
            if path and subprocess.run([path, "--version"], capture_output=True, check=False).returncode == 0:
                yield f"3.{minor}", str(path)
                break


def oldest(setup: str) -> str:
    """A constraint `name==version` for every lower bound of setup.cfg."""
    return "".join(f"{name}=={version}\n" for name, version in re.findall(r"^ +([\w-]+)>=([\d.]+)$", setup, re.M))


def run(name: str, python: str) -> dict[str, str]:
    """Sets up the environment, runs the suite and returns the table's row.

    Raises:
        CalledProcessError: pip failed, or pytest did not come to its end.
    """
    environment, result, constraints = CACHE / name, CACHE / f"{name}.xml", CACHE / f"{name}.txt"
    minor, versions = name.split("-")
    result.unlink(missing_ok=True)
    constraints.write_text(oldest((ROOT / "setup.cfg").read_text()) if versions == "oldest" else "")
    with (CACHE / f"{name}.log").open("w") as log:

        def call(*command: object, statuses: tuple[int, ...] = (0,)) -> None:
            done = subprocess.run([*map(str, command)], cwd=ROOT, stdout=log, stderr=subprocess.STDOUT, check=False)
            if done.returncode not in statuses:
                result.unlink(missing_ok=True)  # of a suite that was stopped
                done.check_returncode()

        try:
            call(python, "-m", "venv", "--clear", environment)
            pip = [environment / "bin" / "pip", "install", "--no-compile"]
            call(*pip, "--constraint", constraints, "--editable", ".[test]")
            shown = f"from importlib.metadata import version; print(*map(version, {SHOWN!r}))"
            found = subprocess.check_output([environment / "bin" / "python", "-c", shown], text=True).split()
            pytest = [environment / "bin" / "pytest", "-n", "auto", "--dist", "loadfile", "--no-loadscope-reorder"]
            call(*pytest, f"--junitxml={result}", statuses=(0, 1))  # 1: tests failed
        finally:
            shutil.rmtree(environment, ignore_errors=True)
    suite = counts(result)
    return dict(zip(COLUMNS, (minor, versions, *found, *suite), strict=True))


def counts(result: Path) -> tuple[str, str, str, str]:
    """How many tests passed, failed and were skipped, and the minutes."""
    suite = ElementTree.parse(result).getroot()[0]
    tests, *others = (int(suite.get(name, 0)) for name in ("tests", "failures", "errors", "skipped"))
    failed, skipped = others[0] + others[1], others[2]
    return str(tests - failed - skipped), str(failed), str(skipped), f"{float(suite.get('time', 0)) / 60:.0f}"


def passed(name: str) -> bool:
    """Whether the combination has run, without a failure."""
    return (CACHE / f"{name}.xml").exists() and counts(CACHE / f"{name}.xml")[1] == "0"


def recorded() -> list[dict[str, str]]:
    """The rows of the table."""
    return list(csv.DictReader(TABLE.read_text().splitlines())) if TABLE.exists() else []


def table(rows: list[dict[str, str]]) -> str:
    """The rows as the page has them, with the marks around them."""
    lines = [COLUMNS, ["---"] * len(COLUMNS), *(row.values() for row in rows)]
    return "\n".join([MARKS[0], *(f"| {' | '.join(line)} |" for line in lines), MARKS[1]])


def add(row: dict[str, str]) -> None:
    """Puts the row into the table, in place of an older one, and the table into the page."""
    known = {(other["python"], other["versions"]): other for other in [*recorded(), row]}
    rows = sorted(known.values(), key=lambda row: (int(row["python"].split(".")[1]), SETS.index(row["versions"])))
    with TABLE.open("w", newline="") as file:
        writer = csv.DictWriter(file, COLUMNS, lineterminator="\n")
        writer.writeheader()
        writer.writerows(rows)
    before, _, rest = PAGE.read_text().partition(MARKS[0])
    PAGE.write_text(before + table(rows) + rest.partition(MARKS[1])[2])


def main(asked: list[str]) -> int:
    """Runs what was asked for, or all that there is, and returns 1 where a run failed."""
    found = {f"{minor}-{versions}": python for minor, python in pythons() for versions in SETS}
    if unknown := set(asked) - set(found):
        print(f"no {', '.join(sorted(unknown))}; there are {', '.join(found)}", file=sys.stderr)
        return 2
    CACHE.mkdir(exist_ok=True)
    todo = [name for name in asked or found if not passed(name)]
    for name in todo:
        print(f"{name}: .matrix/{name}.log has what it says", flush=True)
        try:
            row = run(name, found[name])
        except subprocess.CalledProcessError as error:
            print(f"{name}: {error}")
        else:
            add(row)
            print(f"{name}: {row['passed']} passed, {row['failed']} failed, {row['skipped']} skipped")
    return int(not all(map(passed, asked or found)))


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
