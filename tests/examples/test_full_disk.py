"""Where the disk is full, a script ends with status 2 and one line, leaves no part of a file, and can be resumed."""

import errno
import os

import pytest
from semipyro import files

from helpers.example_runs import call, complaints, imported, numbers

FLAGS = "--hidden 8 --z-dim 2 --epochs 2 --quiet --out run"
FILES = ("settings.json", "last.ckpt", "metrics.csv", "summary.json", "training_curves.png")


@pytest.mark.parametrize("name", FILES)
def test_a_full_disk_ends_in_one_line_and_the_run_can_be_resumed(tmp_path, monkeypatch, name):
    """The system may say so as late as when the file is synced."""
    monkeypatch.chdir(tmp_path)
    sync = files._sync

    def full(path):
        if name in path.name:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(path))
        sync(path)

    with imported("ss_vae_m2") as module:
        monkeypatch.setattr(files, "_sync", full)
        done = call(module, FLAGS, tmp_path)
        assert done.returncode == 2
        (told,) = complaints(done)
        assert "No space left on device" in told
        assert not list(tmp_path.rglob("*.partial"))
        monkeypatch.setattr(files, "_sync", sync)
        assert call(module, FLAGS + " --resume" * (name != "settings.json"), tmp_path).returncode == 0
    assert len(numbers(tmp_path / "run")) == 2
