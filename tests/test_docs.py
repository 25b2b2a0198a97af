"""Every claim runs: doctests, the README's commands and Python, the page's code, and the links of the documents."""

import ast
import configparser
import doctest
import importlib
import os
import pkgutil
import re
import shlex
import subprocess
import sys
from contextlib import redirect_stdout
from io import StringIO
from pathlib import Path
from typing import Any

import pytest
import semipyro
from semipyro import contract

ROOT = Path(__file__).resolve().parent.parent
PLACES = ("*.md", "docs/**/*.md", "results/*.md", "examples/**/*.md")
DOCUMENTS = sorted(path for place in PLACES for path in ROOT.glob(place))
FENCE = re.compile(r"^```(\w+)[^\n]*\n(.*?)^```", re.MULTILINE | re.DOTALL)
LINK = re.compile(r"\]\(([^)\s]+)[^)]*\)")
PAGE = ROOT / contract.PAGE
MOST_LINES = 25  # a class of the page has fewer
NARROW = ["--hidden", "20", "--batch-size", "1000", "--no-figures"]  # of images by the ten thousand
MACHINE_PATH = re.compile(r"(?<![\w.:/-])/(?:work|root|tmp|home|Users)/\w")


def modules() -> list[str]:
    """Every module of semipyro by its own name."""
    return ["semipyro", *(module.name for module in pkgutil.walk_packages(semipyro.__path__, "semipyro."))]


def blocks(*languages: str) -> list[Any]:
    """The README's fenced blocks in one of the languages, with the line on which each starts as its name."""
    text = (ROOT / "README.md").read_text(encoding="utf-8")
    return [
        pytest.param(match[2], id=f"line{text.count(chr(10), 0, match.start()) + 1}")
        for match in FENCE.finditer(text)
        if match[1] in languages
    ]


def commands(block: str) -> list[str]:
    """The commands of a shell block, continued lines joined, without prompts and comments."""
    lines = block.replace("\\\n", " ").splitlines()
    return [line for line in (line.strip().removeprefix("$ ") for line in lines) if line and not line.startswith("#")]


def run(command: list[str], **environment: str) -> None:
    """Run a command from the checkout; fail with what it printed."""
    done = subprocess.run(command, cwd=ROOT, env={**os.environ, **environment}, capture_output=True, text=True)
    assert done.returncode == 0, f"{shlex.join(command)}: exit status {done.returncode}\n{done.stdout}{done.stderr}"


def run_example(words: list[str], epochs: int, out: Path) -> None:
    """Run an example for a few epochs, its results in `out` instead of where the README puts them."""
    if "--out" in words:
        at = words.index("--out")
        out, words = out / words[at + 1].replace("/", "_"), words[:at] + words[at + 2 :]
    if "mnist" in words:
        words = [*words, *NARROW]
    run([sys.executable, *words, "--epochs", str(epochs), "--out", str(out / Path(words[0]).stem)])


def check(command: str, epochs: int, out: Path) -> None:
    """Run a command of the README, or see that it can run; fail on one that nothing here knows."""
    words = shlex.split(command, comments=True)
    while words and re.fullmatch(r"[A-Z_]+=.*", words[0]):
        words = words[1:]
    match words:
        case ["make", *arguments]:
            run(["make", "--dry-run", *arguments], MAKEFLAGS="", MAKELEVEL="")
        case [".venv/bin/python", "examples/reproduce.py" as script, verb, *flags]:
            small = ["--budget", "smoke", "--work", str(out / "work")] if verb == "run" else []
            run([sys.executable, script, verb, *flags, *small, "--results", str(out / "results")])
        case ["python" | "python3" | ".venv/bin/python", script, *_] if script.startswith("examples/"):
            run_example(words[1:], epochs, out)
        case ["pip", "install", *arguments] | ["python" | "python3", "-m", "pip", "install", *arguments]:
            check_install(arguments)
        case ["git", "clone", _, *_] | ["cd", _] | ["export", _] | ["source" | ".", _]:
            pass
        case ["python" | "python3", "-m", "venv", _]:
            pass
        case _:
            pytest.fail(f"the README has a command that this test cannot check: {command}")


def check_install(arguments: list[str]) -> None:
    """See that the extras in `pip install -e .[extra]` exist."""
    setup = configparser.ConfigParser()
    setup.read(ROOT / "setup.cfg", encoding="utf-8")
    for argument in arguments:
        if extras := re.fullmatch(r"(?:\.|semipyro)\[(.*)\]", argument):
            missing = set(extras[1].split(",")) - set(setup["options.extras_require"])
            assert not missing, f"setup.cfg has no extra named {missing}"


def run_page(text: str, name: str) -> dict[str, Any]:
    """Run a page's Python from top to bottom; a block of `text` is what the block before it printed, but for breaks."""
    namespace: dict[str, Any] = {"__name__": "__main__"}
    printed = ""
    for match in FENCE.finditer(text):
        above = text.count("\n", 0, match.start(2))
        if match[1] == "python":
            with redirect_stdout(StringIO()) as out:
                exec(compile("\n" * above + match[2], name, "exec"), namespace)  # tracebacks name the page's lines
            printed = out.getvalue()
        else:
            assert match[1] == "text", f"line {above}: the page has a block of {match[1]}"
            assert printed.split() == match[2].split(), f"line {above}: the code before it prints\n{printed}"
    return namespace


def class_lengths(text: str) -> dict[str, int]:
    """How many lines each class of a page's Python has, with its docstring and its empty lines."""
    trees = (ast.parse(match[2]) for match in FENCE.finditer(text) if match[1] == "python")
    nodes = (node for tree in trees for node in ast.walk(tree) if isinstance(node, ast.ClassDef))
    return {node.name: node.end_lineno - node.lineno + 1 for node in nodes}


@pytest.fixture
def digits() -> dict[str, Any]:
    """The reader's own arrays, as the README's Python has them: x, and y with -1 where there is no label.

    300 rows: what the README promises of its code does not depend on their number, and the time does.
    """
    import numpy as np
    from sklearn.datasets import load_digits

    x, y = load_digits(return_X_y=True)
    x, y = x[:300], y[:300]
    known = np.random.default_rng(0).permutation(len(y)) < 100
    return {"__name__": "__main__", "x": (x / 16).astype("float32"), "y": np.where(known, y, -1)}


@pytest.mark.parametrize("name", modules())
def test_doctests(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    module = importlib.import_module(name)
    monkeypatch.chdir(tmp_path)
    failed, _ = doctest.testmod(module, optionflags=doctest.NORMALIZE_WHITESPACE | doctest.ELLIPSIS)
    assert not failed


@pytest.mark.parametrize("block", blocks("python"))
def test_readme_python(block: str, digits: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    exec(compile(block, "README.md", "exec"), digits)


@pytest.mark.parametrize("block", blocks("sh", "bash", "shell", "console"))
def test_readme_commands(
    block: str, tmp_path: Path, request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch
) -> None:
    if re.search("--data (mnist|fashion-mnist|omniglot)", block):
        monkeypatch.setenv("SEMIPYRO_DATA", str(request.getfixturevalue("data_root")))
    for epochs, command in enumerate(commands(block), start=1):  # one epoch more each, so that --resume has work
        check(command, epochs, tmp_path)


def test_an_unknown_command_is_found(tmp_path: Path) -> None:
    with pytest.raises(pytest.fail.Exception, match="cannot check"):
        check("frobnicate --all", 1, tmp_path)
    with pytest.raises(AssertionError, match="exit status 2"):
        check("make no-such-target", 1, tmp_path)
    with pytest.raises(AssertionError, match="no extra"):
        check("pip install -e '.[no-such-extra]'", 1, tmp_path)


def test_the_page_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Every new part learns (a guess is right in a tenth of the rows) and is drawn, and messages are quoted rightly."""
    monkeypatch.chdir(tmp_path)
    text = PAGE.read_text(encoding="utf-8")
    page = run_page(text, str(PAGE))
    assert len(page["scores"]) == 5
    assert min(page["scores"].values()) > 0.4, page["scores"]
    figures = re.findall(r"savefig\(\"(.+?)\"\)", text)
    assert len(figures) == 5
    assert all((tmp_path / name).stat().st_size > 0 for name in figures)


def test_the_classes_of_the_page_are_short() -> None:
    lengths = class_lengths(PAGE.read_text(encoding="utf-8"))
    assert {"LaplaceNet", "ConvCategorical", "ClassStyleM2", "SharedGuide", "CertainELBO"} <= lengths.keys()
    assert not {name: lines for name, lines in lengths.items() if lines >= MOST_LINES}


def test_what_is_wrong_on_a_page_is_found() -> None:
    for wrong in ("2", "1 1", "", "1\n```\n```text\n2"):
        with pytest.raises(AssertionError, match=r"line \d: the code before it prints\s+1"):
            run_page(f"```python\nprint(1)\n```\n\n```text\n{wrong}\n```\n", "page")
    with pytest.raises(AssertionError, match="a block of python3"):
        run_page("```python3\nprint(1)\n```\n", "page")
    with pytest.raises(ZeroDivisionError):
        run_page("```python\na = 0\n```\n\n```python\n1 / a\n```\n", "page")
    assert class_lengths("```python\nclass A:\n    x = 1\n\n    y = 2\n\n\nz = 3\n```\n") == {"A": 4}


@pytest.mark.parametrize("name", ["README.md", "CONTRIBUTING.md"])
def test_the_page_is_linked(name: str) -> None:
    assert contract.PAGE in LINK.findall((ROOT / name).read_text(encoding="utf-8"))


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: str(path.relative_to(ROOT)))
def test_links_lead_somewhere(document: Path) -> None:
    links = [link.partition("#")[0] for link in LINK.findall(document.read_text(encoding="utf-8"))]
    local = [link for link in links if link and not re.match(r"[a-z]+:", link)]
    assert not [link for link in local if not (document.parent / link).exists()]


def test_every_promise_is_held_by_a_test() -> None:
    """The tests that the page on reliability names are there."""
    named = re.findall(r"`(tests/[\w/]+\.py)::(\w+)`", (ROOT / "docs" / "reliability.md").read_text(encoding="utf-8"))
    assert len(named) > 25
    missing = [f"{path}::{name}" for path, name in named if f"\ndef {name}(" not in (ROOT / path).read_text("utf-8")]
    assert not missing


def test_no_paths_of_one_machine(source_files: list[Path]) -> None:
    found = []
    for path in source_files:
        try:
            lines = path.read_text(encoding="utf-8").splitlines()
        except UnicodeDecodeError:  # an image
            continue
        found += [
            f"{path.relative_to(ROOT)}:{n}: {line}" for n, line in enumerate(lines, 1) if MACHINE_PATH.search(line)
        ]
    assert not found, "\n".join(found)
