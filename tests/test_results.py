"""Numbers in the README come from files that a command wrote."""

import json
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
SUMMARIES = sorted((ROOT / "results").rglob("summary.json"))


@pytest.mark.parametrize("path", SUMMARIES, ids=lambda path: path.parent.name)
def test_the_readme_s_row_is_what_was_measured(path):
    found, folder = json.loads(path.read_text()), path.parent.relative_to(ROOT).as_posix()
    (row,) = [line for line in (ROOT / "README.md").read_text().splitlines() if f"({folder})" in line]
    cells = [cell.strip() for cell in row.strip("|").split("|")]
    assert cells[0] == f"[seed {found['seed']}, {found['epochs']} epochs]({folder})"
    assert cells[1:4] == [f"{found['test_accuracy']:.1%}", f"{found['baseline_accuracy']:.1%}", f"{found['bound']:.2f}"]
    assert cells[4] == f"{found['seconds'] / 60:.0f}"


def test_every_row_of_the_readme_has_its_file():
    rows = [line for line in (ROOT / "README.md").read_text().splitlines() if line.startswith("| [seed ")]
    assert len(rows) == len(SUMMARIES) > 0
