"""The table of papers is whole: what stands in the folders is in the table, and the other way round."""

import importlib
import re
from pathlib import Path

import pytest
from semipyro import guides, models
from semipyro.inference import Objective
from semipyro.papers import PAPERS

ROOT = Path(__file__).resolve().parent.parent


@pytest.fixture(scope="module")
def built():
    return {name: row.build(6, 3, hidden=(4,), z_dim=2) for name, row in PAPERS.items()}


def test_every_row_says_what_it_is_and_builds_an_objective(built):
    for name, row in PAPERS.items():
        assert row.name == name
        assert re.fullmatch(r"\d{4}\.\d{4,5}", row.arxiv)
        assert row.arxiv in (ROOT / "README.md").read_text()
        assert isinstance(built[name], Objective)
        assert row.classifies == hasattr(built[name].guide, "classify")


@pytest.mark.parametrize(("folder", "package"), [("models", models), ("guides", guides)])
def test_every_file_is_exported_and_used_by_a_row(folder, package, built):
    used = {type(getattr(objective, folder.rstrip("s"))).__name__ for objective in built.values()}
    for path in sorted((ROOT / folder).glob("[!_]*.py")):
        module = importlib.import_module(f"semipyro.{folder}.{path.stem}")
        classes = {name for name, thing in vars(module).items() if getattr(thing, "__module__", "") == module.__name__}
        assert classes
        assert classes <= set(package.__all__)
        assert classes & used, f"{path.name} is in no row of papers.py"


def test_every_row_takes_the_networks_settings():
    for row in PAPERS.values():
        objective = row.build(6, 3, hidden=(4, 5), z_dim=2, activation="relu", likelihood="normal", scale=0.5)
        assert objective.model.p_x.scale == 0.5
        widths = [p.shape for p in objective.parameters() if p.ndim == 2]
        assert (5, 4) in widths
