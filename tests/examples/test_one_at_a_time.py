"""Of two scripts in one folder, one is refused in a line, whatever both are to do there."""

import subprocess
import sys

import pytest
from semipyro.files import hold

from helpers.example_runs import EXAMPLES, call, files, imported, numbers, summary

SMALL = "--hidden 8 --z-dim 2 --epochs 2 --no-figures --quiet"
SCRIPTS = {
    "ss_vae_m1": "--hidden 8 --z-dim 2 --epochs 1 --no-figures",
    "ss_vae_m2": "--hidden 8 --z-dim 2 --epochs 1 --no-figures",
    "compare_guides": "--hidden 8 --z-dim 2 --epochs 1 --guides diagonal --bound-samples 2",
    "own_data": "--data iris --labels 1 --draws 1 --models m2",
}


@pytest.fixture
def own(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.mark.parametrize("name", SCRIPTS)
def test_the_folder_of_a_live_run_is_nobody_else_s(own, name):
    with imported(name) as module:
        with hold(own / "run"):
            done = call(module, f"{SCRIPTS[name]} --out run", own)
        assert done.returncode == 2
        assert done.stderr.count("\n") == 1
        assert "another process is at work in run; wait for its end, or choose another folder" in done.stderr
        assert files(own) == []


def test_a_live_run_is_neither_overwritten_nor_resumed(own):
    with imported("ss_vae_m2") as module:
        assert call(module, f"{SMALL} --out run", own).returncode == 0
        before = files(own)
        for flag in ("--resume", "--overwrite"):
            with hold(own / "run"):
                done = call(module, f"{SMALL} --out run {flag}", own)
            assert done.returncode == 2
            assert "another process is at work in run" in done.stderr
            assert files(own) == before
        assert call(module, f"{SMALL} --out run --resume", own).returncode == 0
        assert call(module, f"{SMALL} --out run --overwrite", own).returncode == 0


@pytest.mark.reliability
def test_of_two_scripts_started_at_once_one_is_refused(own):
    """The folder is the other's, whole: its seed says whose."""
    started = [
        subprocess.Popen(
            [sys.executable, EXAMPLES / "ss_vae_m2.py", *SMALL.split(), "--out", "run", "--seed", str(seed)],
            stderr=subprocess.PIPE,
            text=True,
        )
        for seed in range(2)
    ]
    told = [process.communicate(timeout=300)[1] for process in started]
    status = [process.returncode for process in started]
    assert sorted(status) == [0, 2], told
    refused = told[status.index(2)]
    assert "another process is at work in run" in refused or "holds another run" in refused
    assert summary(own / "run")["seed"] == status.index(0)
    assert len(numbers(own / "run")) == 2
