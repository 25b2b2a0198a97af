"""Every claim runs: doctests, the README's commands and Python, and the links of the documents."""

import configparser
import doctest
import importlib
import os
import pkgutil
import re
import shlex
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import semipyro

ROOT = Path(__file__).resolve().parent.parent
PLACES = ("*.md", "docs/**/*.md", "results/*.md", "examples/**/*.md")
DOCUMENTS = sorted(path for place in PLACES for path in ROOT.glob(place))
FENCE = re.compile(r"^```(\w+)[^\n]*\n(.*?)^```", re.MULTILINE | re.DOTALL)
LINK = re.compile(r"\]\(([^)\s]+)[^)]*\)")
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


@pytest.fixture
def digits() -> dict[str, Any]:
    """The reader's own arrays, as the README's Python has them: x, and y with -1 where there is no label."""
    import numpy as np
    from sklearn.datasets import load_digits

    x, y = load_digits(return_X_y=True)
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


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: str(path.relative_to(ROOT)))
def test_links_lead_somewhere(document: Path) -> None:
    links = [link.partition("#")[0] for link in LINK.findall(document.read_text(encoding="utf-8"))]
    local = [link for link in links if link and not re.match(r"[a-z]+:", link)]
    assert not [link for link in local if not (document.parent / link).exists()]


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
