"""The tests are laid out as the package is, and what they share is in `helpers`."""

import ast
import re
from collections.abc import Set as AbstractSet
from pathlib import Path

import pytest

IMPORTED = re.compile(r"^ *(?:from|import) (\w+)", re.MULTILINE)
WITHOUT_PACKAGE = {"examples", "helpers"}  # scripts that are not in the package, and what the tests share


def imported_tests(source: str, tests: AbstractSet[str]) -> set[str]:
    """The names of test modules that a module, or a script in one of its strings, imports, as a whole or in part."""
    found = set(IMPORTED.findall(source)) & tests
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import | ast.ImportFrom):
            names = {alias.name for alias in node.names} | {getattr(node, "module", None) or ""}
            found |= {part for name in names for part in name.split(".")} & tests
    return found


@pytest.fixture(scope="session")
def modules(root: Path, source_files: list[Path]) -> list[Path]:
    """Every Python file of the tests, relative to their folder."""
    tests = root / "tests"
    return [path.relative_to(tests) for path in source_files if path.is_relative_to(tests) and path.suffix == ".py"]


def test_no_module_imports_a_test_module(root: Path, modules: list[Path]) -> None:
    """What two test modules need is in `helpers`: so each can be moved, split and run by itself."""
    tests = {path.stem for path in modules if path.stem.startswith("test_")}
    assert len(tests) > 40
    found = {
        path.as_posix(): imported_tests((root / "tests" / path).read_text(encoding="utf-8"), tests) for path in modules
    }
    wrong = {path: sorted(names) for path, names in found.items() if names}
    assert not wrong, f"move what these share with other test modules to tests/helpers: {wrong}"


@pytest.mark.parametrize(
    ("source", "expected"),
    [
        ("from test_mlp import close", {"test_mlp"}),
        ("import test_mlp", {"test_mlp"}),
        ("from tests.distributions.test_mlp import close", {"test_mlp"}),
        ("from tests.distributions import test_mlp", {"test_mlp"}),
        ("def f():\n    from test_mlp import close", {"test_mlp"}),
        ('SCRIPT = """\nimport sys\nfrom test_fit import Line\n"""', {"test_fit"}),
        ("from helpers.comparisons import close\nfrom sklearn.model_selection import train_test_split", set()),
    ],
)
def test_an_import_of_a_test_module_is_found(source: str, expected: set[str]) -> None:
    assert imported_tests(source, {"test_mlp", "test_fit"}) == expected


def test_every_folder_of_the_package_has_a_folder_of_tests(
    root: Path, source_files: list[Path], modules: list[Path]
) -> None:
    """Of the same name as the folder's own: the tests of `inference/objectives` are in `tests/objectives`.

    A module of the package, such as `papers.py`, can have a folder as well.
    """
    inner = [path.relative_to(root) for path in source_files if path.suffix == ".py"]
    package = {
        path.parent for path in inner if path.name == "__init__.py" and path.parts[0] not in ("tests", "examples")
    }
    folders = {folder.name for folder in package} - {""}
    tested = {path.parts[0] for path in modules if len(path.parts) == 2 and path.stem.startswith("test_")}
    assert len(folders) > 5
    assert not folders - tested, "these folders of the package have no folder of tests in tests/"
    known = folders | {path.stem for path in inner if len(path.parts) == 1} | WITHOUT_PACKAGE
    assert not {path.parts[0] for path in modules if len(path.parts) > 1} - known, "these folders test nothing"
