"""The notebooks run from top to bottom, twice in one kernel, and were committed as they ran."""

import copy
import re
from pathlib import Path

import nbformat
import pytest
from nbclient import NotebookClient

FOLDER = Path(__file__).resolve().parent.parent / "examples" / "notebooks"
NOTEBOOKS = sorted(FOLDER.glob("*.ipynb"))
SECONDS = 600  # for a cell on a busy machine; a whole notebook takes about ten, in its smaller settings
MOST_BYTES = 1_500_000
UNDRAWN = "from semipyro.plots.common import NotebookFigure\nNotebookFigure._repr_png_ = lambda _: None"


def read(path):
    return nbformat.read(path, as_version=4)


def code_cells(notebook):
    return [cell for cell in notebook.cells if cell.cell_type == "code"]


def text(notebook):
    return "\n".join(cell.source for cell in notebook.cells if cell.cell_type == "markdown")


def streams(cells, name):
    return [output.text for cell in cells for output in cell.outputs if output.get("name") == name]


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_it_runs_twice_in_one_kernel_without_a_warning(path, monkeypatch):
    """With the smaller settings of SEMIPYRO_QUICK; the second time, figures are made and not rendered again."""
    monkeypatch.setenv("SEMIPYRO_QUICK", "1")
    notebook = read(path)
    again = copy.deepcopy(notebook.cells)
    for cell in again:
        cell.id = f"{cell.id}-again"
    notebook.cells += [nbformat.v4.new_code_cell(UNDRAWN), *again]
    NotebookClient(notebook, timeout=SECONDS, resources={"metadata": {"path": str(FOLDER)}}).execute()
    assert streams(code_cells(notebook), "stderr") == []


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_it_is_committed_as_it_ran(path):
    """From top to bottom in a new kernel, with the usual settings: no warning, no folder of a machine."""
    cells = code_cells(read(path))
    assert [cell.execution_count for cell in cells] == list(range(1, len(cells) + 1))
    assert streams(cells, "stderr") == []
    assert not any(output.output_type == "error" for cell in cells for output in cell.outputs)
    assert not re.search(r"(/home|/tmp|/root|/work|/Users)/", path.read_text())
    assert path.stat().st_size < MOST_BYTES


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_it_teaches(path):
    """What the reader will be able to do, two exercises or more with hidden solutions, and what to read."""
    notebook = read(path)
    first, last = notebook.cells[0].source, notebook.cells[-1].source
    assert re.match(r"# .+", first)
    assert "you will be able to" in first
    assert text(notebook).count("<details>") == text(notebook).count("</details>") >= 2
    assert re.match(r"## (What to r|R)ead", last)


def test_the_readme_lists_them_all():
    listed = re.findall(r"\]\(([\w-]+\.ipynb)\)", (FOLDER / "README.md").read_text())
    assert sorted(listed) == [path.name for path in NOTEBOOKS]
    assert len(NOTEBOOKS) == 8
