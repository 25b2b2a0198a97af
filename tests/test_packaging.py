"""The built wheel holds the whole package and nothing else, and its parts import only what `TABLE` allows them."""

import ast
import configparser
import runpy
import shutil
import subprocess
import sys
import zipfile
from collections.abc import Iterator
from collections.abc import Set as AbstractSet
from pathlib import Path
from typing import NamedTuple

import pytest

HEAVY = {"torch", "torchvision", "pyro", "lightning", "sklearn", "matplotlib", "numpy", "filelock"}


class Allowed(NamedTuple):
    """What a part of the package may import."""

    parts: AbstractSet[str]  # of semipyro
    eager: AbstractSet[str]  # third parties, when the part is imported
    lazy: AbstractSet[str] = frozenset()  # third parties, inside functions


PAPER = {"distributions", "contract", "checks"}
SHARED = {"compat", "files", "modules", "checks", "threads"}  # of no paper: what every part may use
BELOW_INFERENCE = PAPER | SHARED
BELOW_PAPERS = PAPER | SHARED | {"models", "guides", "inference", "data", "plots"}
TABLE = {
    "__init__": Allowed({"estimator"}, set()),
    "compat": Allowed(set(), {"torch"}, {"torchvision"}),
    "files": Allowed(set(), {"filelock"}),
    "modules": Allowed(set(), {"torch"}),
    "checks": Allowed(set(), set()),
    "threads": Allowed(set(), {"torch", "pyro"}),
    "contract": Allowed(set(), {"torch", "pyro"}),
    "distributions": Allowed({"checks"}, {"torch", "pyro"}),
    "models": Allowed(PAPER, {"torch", "pyro"}),
    "guides": Allowed(PAPER, {"torch", "pyro"}),
    # the wings: comparison → training → evaluation → objectives
    "inference.objectives": Allowed(BELOW_INFERENCE, {"torch", "pyro"}),
    "inference.evaluation": Allowed(BELOW_INFERENCE | {"inference.objectives"}, {"torch", "pyro"}, {"scipy"}),
    "inference.training": Allowed(
        BELOW_INFERENCE | {"inference.objectives", "inference.evaluation"}, {"torch", "numpy"}
    ),
    # imported by `fit`, when it is called
    "inference.training.loop": Allowed(
        BELOW_INFERENCE | {"inference.objectives", "inference.evaluation", "inference.training"},
        {"torch", "lightning", "tqdm"},
    ),
    "inference.comparison": Allowed(
        BELOW_INFERENCE | {"inference.objectives", "inference.evaluation", "inference.training"}, {"torch"}
    ),
    "inference": Allowed(
        {"inference.objectives", "inference.evaluation", "inference.training", "inference.comparison"}, set()
    ),
    "data": Allowed(SHARED, {"torch", "numpy"}, {"torchvision", "sklearn", "PIL"}),
    "plots": Allowed(
        PAPER | SHARED | {"inference"}, {"torch", "pyro", "numpy", "matplotlib"}, {"sklearn", "ipywidgets"}
    ),
    "papers": Allowed(BELOW_PAPERS, {"torch", "pyro", "numpy"}),
    "estimator": Allowed(BELOW_PAPERS | {"papers"}, {"torch", "pyro", "numpy", "sklearn"}, {"lightning"}),
}


class Import(NamedTuple):
    """One imported module: its name from the top, and whether it waits for a call."""

    name: str
    lazy: bool


def imports(source: str, module: str, *, is_package: bool) -> Iterator[Import]:
    """Modules that `source`, the text of `module` ("semipyro.models.m2"), imports, relative ones resolved."""
    package = module.split(".") if is_package else module.split(".")[:-1]

    def visit(node: ast.AST, lazy: bool) -> Iterator[Import]:
        if isinstance(node, ast.Import):
            yield from (Import(alias.name, lazy) for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            base = package[: len(package) - node.level + 1] if node.level else []
            base = base + (node.module.split(".") if node.module else [])
            yield from (Import(".".join([*base, alias.name]), lazy) for alias in node.names)
        later = isinstance(node, ast.FunctionDef) or (
            isinstance(node, ast.If) and ast.unparse(node.test).endswith("TYPE_CHECKING")
        )
        for child in ast.iter_child_nodes(node):
            yield from visit(child, lazy or later)

    return visit(ast.parse(source), lazy=False)


def part_of(name: str) -> str:
    """The row of TABLE that a module, or a name in it, belongs to: the longest that its name begins with."""
    inner = name.removeprefix("semipyro").removeprefix(".") or "__init__"
    rows = [row for row in TABLE if f"{inner}.".startswith(f"{row}.")]
    return max(rows, key=len, default=inner.partition(".")[0])


def forbidden(source: str, module: str, *, is_package: bool = False) -> list[str]:
    """What `module` imports against the table, in words."""
    part = part_of(module)
    if part not in TABLE:
        return [f"{module}: {part} has no row in the table of allowed imports"]
    allowed, found = TABLE[part], []
    for name, lazy in imports(source, module, is_package=is_package):
        top = name.partition(".")[0]
        if top == "semipyro":
            other = part_of(name)
            own = other == part or (part == "__init__" and name == "semipyro.__version__")
            within = lazy and other == f"{part}.loop"  # `fit` imports the Lightning side of its wing
            if not own and not within and not any(f"{other}.".startswith(f"{known}.") for known in allowed.parts):
                found.append(f"{module} imports semipyro.{other}, which {part} may not know")
        elif top not in sys.stdlib_module_names and top not in allowed.eager | (allowed.lazy if lazy else set()):
            where = " outside a function" if top in allowed.lazy else ""
            found.append(f"{module} imports {top}{where}")
    return list(dict.fromkeys(found))


def is_source(path: Path) -> bool:
    """Whether a file, relative to the checkout, belongs in the package."""
    return path.suffix == ".py" and (len(path.parts) == 1 or (path.parts[0] in TABLE))


@pytest.fixture(scope="session")
def sources(root: Path, source_files: list[Path]) -> list[Path]:
    """The package's modules, relative to the checkout."""
    return [path.relative_to(root) for path in source_files if is_source(path.relative_to(root))]


@pytest.fixture(scope="session")
def wheel(root: Path, source_files: list[Path], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The wheel, built from a copy, so that no earlier build can hide a missing package."""
    copy, out = tmp_path_factory.mktemp("checkout"), tmp_path_factory.mktemp("wheel")
    for path in source_files:
        target = copy / path.relative_to(root)
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(path, target)
    command = [sys.executable, "-m", "pip", "wheel", str(copy), "--no-deps", "--no-build-isolation", "-w", str(out)]
    built = subprocess.run(command, capture_output=True, text=True)
    assert built.returncode == 0, built.stdout + built.stderr
    return next(out.glob("semipyro-*.whl"))


@pytest.fixture(scope="session")
def site(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the unpacked wheel."""
    folder = tmp_path_factory.mktemp("site")
    zipfile.ZipFile(wheel).extractall(folder)
    return folder


def loaded(site: Path, *modules: str) -> set[str]:
    """Top-level modules in memory after a fresh Python imported `modules` from the wheel."""
    code = (
        f"import sys; sys.path.insert(0, {str(site)!r}); import semipyro, {', '.join(modules) or 'sys'}\n"
        f"assert semipyro.__file__.startswith({str(site)!r}), semipyro.__file__\n"
        "print(*{name.partition('.')[0] for name in sys.modules})"
    )
    fresh = subprocess.run([sys.executable, "-I", "-c", code], capture_output=True, text=True, cwd=site.parent)
    assert fresh.returncode == 0, fresh.stderr
    return set(fresh.stdout.split())


def test_every_requirement_has_a_lower_bound(root: Path) -> None:
    """`make matrix` tests it; ruff and mypy check the code and take no part in what is tested."""
    setup = configparser.ConfigParser()
    setup.read(root / "setup.cfg", encoding="utf-8")
    extras = setup["options.extras_require"]
    required = [*setup["options"]["install_requires"].split(), *extras["test"].split(), *extras["experiments"].split()]
    assert {name for name in required if ">=" not in name} == {"ruff", "mypy"}


def test_the_readme_has_the_table_that_make_matrix_wrote(root: Path) -> None:
    matrix = runpy.run_path(str(root / ".ci" / "matrix.py"))
    assert matrix["table"](matrix["recorded"]()) in (root / "README.md").read_text(encoding="utf-8")


def test_every_folder_of_modules_is_a_package(sources: list[Path]) -> None:
    folders = {path.parent for path in sources}
    assert not [str(folder) for folder in folders if folder / "__init__.py" not in sources]


def test_the_table_knows_every_part(root: Path, source_files: list[Path]) -> None:
    parts = {path.relative_to(root).parts[0] for path in source_files if path.name == "__init__.py"}
    parts -= {"__init__.py", "examples", "tests"}
    parts |= {path.stem for path in source_files if path.parent == root and path.suffix == ".py"}
    assert parts <= set(TABLE), "a new part of the package needs a row in TABLE and in setup.cfg"


def test_the_wheel_holds_the_package_and_nothing_else(wheel: Path, sources: list[Path]) -> None:
    names = {name for name in zipfile.ZipFile(wheel).namelist() if ".dist-info/" not in name}
    assert names == {f"semipyro/{path.as_posix()}" for path in sources} | {"semipyro/py.typed"}


def test_the_wheel_carries_its_licence(wheel: Path, root: Path) -> None:
    archive = zipfile.ZipFile(wheel)
    (name,) = [name for name in archive.namelist() if name.endswith("/LICENSE")]
    assert archive.read(name) == (root / "LICENSE").read_bytes()


def test_importing_the_package_imports_nothing_heavy(site: Path) -> None:
    assert not loaded(site) & HEAVY


@pytest.mark.parametrize(
    ("modules", "absent"),
    [
        (("distributions", "models", "guides"), {"lightning", "sklearn", "torchvision", "matplotlib"}),
        (("inference",), {"lightning", "sklearn", "torchvision", "matplotlib"}),
        (("data",), {"lightning", "sklearn", "torchvision", "matplotlib", "pyro"}),
        (("plots",), {"lightning", "sklearn", "torchvision"}),
    ],
)
def test_importing_a_part_leaves_the_rest_alone(site: Path, modules: tuple[str, ...], absent: set[str]) -> None:
    assert not loaded(site, *(f"semipyro.{module}" for module in modules)) & absent


def test_every_module_of_the_wheel_imports(site: Path, sources: list[Path]) -> None:
    names = [".".join(["semipyro", *path.with_suffix("").parts]).removesuffix(".__init__") for path in sources]
    assert "semipyro" in loaded(site, *names)


def test_imports_run_one_way(root: Path, sources: list[Path]) -> None:
    found = []
    for path in sources:
        is_package = path.name == "__init__.py"
        parts = ["semipyro", *path.with_suffix("").parts]
        module = ".".join(parts[:-1] if is_package else parts)
        found += forbidden((root / path).read_text(encoding="utf-8"), module, is_package=is_package)
    assert not found, "\n".join(found)


@pytest.mark.parametrize(
    ("module", "source", "message"),
    [
        ("semipyro.models.m2", "from ..guides import M2Guide", "imports semipyro.guides"),
        ("semipyro.models.m2", "from .. import guides", "imports semipyro.guides"),
        ("semipyro.models.m2", "def f():\n    from semipyro.guides.m2 import M2Guide", "imports semipyro.guides"),
        ("semipyro.models.m2", "import lightning", "imports lightning"),
        ("semipyro.distributions.mlp", "from ..models import M2", "imports semipyro.models"),
        ("semipyro.inference.training.fit", "import lightning.pytorch as pl", "imports lightning"),
        ("semipyro.inference.training.fit", "from .loop import run", "imports semipyro.inference.training.loop"),
        ("semipyro.inference.objectives.elbo", "from ..evaluation import evaluate", "imports semipyro.inference.evalu"),
        ("semipyro.inference.evaluation.units", "from ..training import fit", "imports semipyro.inference.training"),
        ("semipyro.inference.training.fit", "from .. import comparison", "imports semipyro.inference.comparison"),
        ("semipyro.inference.objectives.elbo", "from .. import fit", "imports semipyro.inference, which"),
        ("semipyro.inference.evaluation.clusters", "import scipy", "imports scipy outside a function"),
        ("semipyro.data.load", "from torchvision import datasets", "imports torchvision outside a function"),
        ("semipyro.extra", "import math", "has no row"),
        ("semipyro.models.m2", "from ..distributions import MLP\nfrom .vae import VAE\nimport torch, math", ""),
        ("semipyro.inference.evaluation.clusters", "def f():\n    import scipy", ""),
        ("semipyro.inference.training.fit", "def fit():\n    from .loop import run", ""),
    ],
)
def test_a_forbidden_import_is_found(module: str, source: str, message: str) -> None:
    found = "\n".join(forbidden(source, module))
    assert message in found if message else not found
