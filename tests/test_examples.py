"""The examples as a user runs them: what they print, write, refuse, and survive."""

import csv
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest

EXAMPLES = Path(__file__).resolve().parent.parent / "examples"
SMALL = ["--hidden", "12", "--z-dim", "3", "--batch-size", "300"]
FIGURES = ["analogies", "class_samples", "confusion_matrix", "latent_pca", "latent_tsne", "training_curves"]
RUN = ["best.ckpt", "last.ckpt", *(f"{name}.png" for name in FIGURES), "metrics.csv", "settings.json", "summary.json"]


def command(*flags):
    return [sys.executable, "-W", "error", str(EXAMPLES / "ss_vae_m2.py"), *map(str, flags)]


def run(*flags, folder=None):
    """The finished process."""
    return subprocess.run(command(*flags), capture_output=True, text=True, cwd=folder, timeout=300, check=False)


def summary(folder):
    return json.loads((folder / "summary.json").read_text())


def numbers(folder):
    """metrics.csv but for the seconds, which no run repeats."""
    with (folder / "metrics.csv").open() as file:
        return [{name: value for name, value in row.items() if name != "seconds"} for row in csv.DictReader(file)]


def files(folder):
    return sorted(path.name for path in folder.rglob("*") if path.is_file())


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    """A finished run of four epochs, in the default folder of its working directory."""
    folder = tmp_path_factory.mktemp("finished")
    done = run(*SMALL, "--epochs", 4, folder=folder)
    assert done.returncode == 0, done.stderr
    return folder / "runs" / "ss_vae_m2", done


def test_a_run_prints_a_table_and_leaves_its_files(finished):
    folder, done = finished
    assert files(folder) == sorted(RUN)
    found = summary(folder)
    assert {
        "paper",
        "data",
        "labels",
        "seed",
        "epochs",
        "seconds",
        "test_accuracy",
        "baseline_accuracy",
        "bound",
    } <= set(found)
    assert (found["paper"], found["data"], found["labels"], found["epochs"]) == ("m2", "digits", 100, 4)
    assert {"python", "torch", "pyro-ppl", "lightning", "semipyro"} <= set(found["versions"])
    assert len(numbers(folder)) == 4
    assert f"{found['test_accuracy']:.1%}" in done.stdout
    assert f"{found['baseline_accuracy']:.1%}" in done.stdout
    assert "runs/ss_vae_m2" in done.stdout
    assert done.stderr == ""


def test_the_baseline_learns_from_the_labels_and_is_not_the_model(finished):
    found = summary(finished[0])
    assert 0.7 < found["baseline_accuracy"] < 1
    assert found["baseline_accuracy"] != found["test_accuracy"]


def test_a_seed_repeats_a_run_to_the_last_digit_and_another_does_not(finished, tmp_path):
    for seed in (0, 1):
        done = run(*SMALL, "--epochs", 4, "--seed", seed, "--out", tmp_path / str(seed), "--quiet")
        assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
    same, other = tmp_path / "0", tmp_path / "1"
    assert numbers(same) == numbers(finished[0])
    measured = ("test_accuracy", "baseline_accuracy", "bound", "best_epoch")
    assert [summary(same)[name] for name in measured] == [summary(finished[0])[name] for name in measured]
    assert numbers(other) != numbers(same)


def test_a_killed_run_resumes_to_the_same_numbers(finished, tmp_path):
    """kill -9 of a real process in mid-run; nothing half-written is left, and the end is the same."""
    flags = [*SMALL, "--epochs", 4, "--out", tmp_path / "run", "--quiet"]
    process = subprocess.Popen(command(*flags), env={**os.environ, "OMP_NUM_THREADS": "1"})
    deadline = time.monotonic() + 120
    while not (tmp_path / "run" / "checkpoints" / "last.ckpt").exists() and time.monotonic() < deadline:
        time.sleep(0.002)
    process.send_signal(signal.SIGKILL)
    process.wait()
    assert not (tmp_path / "run" / "summary.json").exists()
    assert 1 <= len(numbers(tmp_path / "run")) < 4
    done = run(*flags, "--resume")
    assert done.returncode == 0, done.stderr
    assert numbers(tmp_path / "run") == numbers(finished[0])
    for name in ("test_accuracy", "baseline_accuracy", "bound"):
        assert summary(tmp_path / "run")[name] == summary(finished[0])[name]


def test_a_run_can_be_resumed_for_more_epochs(tmp_path):
    assert run(*SMALL, "--epochs", 2, "--out", tmp_path / "run").returncode == 0
    assert run(*SMALL, "--epochs", 3, "--out", tmp_path / "run", "--resume").returncode == 0
    assert len(numbers(tmp_path / "run")) == summary(tmp_path / "run")["epochs"] == 3


def test_overwrite_starts_afresh_and_touches_nothing_else(tmp_path):
    assert run(*SMALL, "--epochs", 2, "--out", tmp_path / "run").returncode == 0
    (tmp_path / "run" / "notes.txt").write_text("mine")
    assert run(*SMALL, "--epochs", 1, "--out", tmp_path / "run", "--overwrite").returncode == 0
    assert len(numbers(tmp_path / "run")) == 1
    assert (tmp_path / "run" / "notes.txt").read_text() == "mine"


def test_help_explains_every_flag_with_its_default():
    text = run("--help").stdout
    promised = (
        "data data-root labels epochs batch-size labelled-batch-size learning-rate seed device precision out resume"
    )
    for flag in (*promised.split(), "z-dim", "hidden", "likelihood", "labelled-weight", "classification-weight"):
        assert f"--{flag} " in text
    assert "(default: 0.003)" in text
    assert "arXiv:1406.5298" in text


@pytest.fixture(scope="module")
def archives(tmp_path_factory):
    """The user's own files, good and bad."""
    folder = tmp_path_factory.mktemp("archives")
    random = np.random.default_rng(0)
    x, y = random.random((60, 5)), np.repeat(np.arange(3), 20)
    np.savez(folder / "good.npz", x=x, y=y)
    np.savez(folder / "real.npz", x=4 * x - 2, y=y)
    np.savez(folder / "few.npz", x=x, y=np.where(np.arange(60) % 4 == 0, y, -1))
    np.savez(folder / "nox.npz", data=x, y=y)
    np.savez(folder / "objects.npz", x=np.array([{}, 1], dtype=object))
    np.savez(folder / "length.npz", x=x, y=y[:-1])
    np.savez(folder / "nan.npz", x=np.where(x > 0.99, np.nan, x), y=y)
    np.savez(folder / "missing_class.npz", x=x, y=np.where(y == 1, 2, y))
    (folder / "text.npz").write_text("x, y")
    whole = (folder / "good.npz").read_bytes()
    (folder / "short.npz").write_bytes(whole[: len(whole) // 2])
    return folder


BAD = [
    (["--labels", "7"], "--labels must be a multiple of 10"),
    (["--labels", "5"], "--labels must be a multiple of 10"),
    (["--labels", "0"], "--labels must be at least 1"),
    (["--labels", "5000"], "per_class"),
    (["--labels", "many"], "argument --labels: invalid int value"),
    (["--epochs", "0"], "--epochs must be at least 1, got 0"),
    (["--epochs", "-2"], "--epochs must be at least 1, got -2"),
    (["--batch-size", "0"], "--batch-size must be at least 1"),
    (["--learning-rate", "-1"], "learning_rate must be positive"),
    (["--learning-rate", "nan"], "learning_rate must be positive"),
    (["--data", "imagenet"], "digits, moons"),
    (["--data", "nowhere.npz"], "nowhere.npz"),
    (["--data", "mnist", "--data-root", "nowhere"], "torchvision.datasets.MNIST"),
    (["--device", "abacus"], "device must be one of auto, cpu, cuda, mps"),
    (["--precision", "8"], "precision must be one of 32, bf16"),
    (["--activation", "sigmoid"], "activation must be one of"),
    (["--likelihood", "poisson"], "likelihood must be one of bernoulli, normal"),
    (["--data", "moons", "--labels", "10", "--likelihood", "bernoulli"], "[0, 1]"),
    (["--hidden", "0"], "positive width"),
    (["--z-dim", "0"], "positive width"),
    (["--scale", "0", "--likelihood", "normal"], "scale must be"),
    (["--num-samples", "0"], "num_samples must be a positive integer"),
    (["--classification-weight", "-1"], "must not be negative"),
    (["--kl-warmup", "-1"], "kl_warmup"),
    (["--gradient-clip", "0"], "gradient_clip_norm"),
    (["--no-such-flag"], "unrecognized arguments: --no-such-flag"),
    (["--resume"], "holds no run"),
    (["--data", "{archives}/nox.npz"], "'x'"),
    (["--data", "{archives}/objects.npz"], "objects"),
    (["--data", "{archives}/length.npz"], "59"),
    (["--data", "{archives}/nan.npz"], "NaN"),
    (["--data", "{archives}/missing_class.npz", "--labels", "3"], "class"),
    (["--data", "{archives}/text.npz"], "not an .npz archive"),
    (["--data", "{archives}/short.npz"], "not an .npz archive"),
]


@pytest.mark.parametrize(("flags", "message"), BAD, ids=[" ".join(flags) for flags, _ in BAD])
def test_wrong_use_ends_with_2_and_one_line_and_writes_nothing(flags, message, archives, tmp_path, monkeypatch, capsys):
    """In this process, since a new one takes seconds; `test_exit_status` runs one for real."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(EXAMPLES)
    import ss_vae_m2

    with pytest.raises(SystemExit) as stopped:
        ss_vae_m2.main([*SMALL, "--epochs", "1", *(flag.format(archives=archives) for flag in flags)])
    printed = capsys.readouterr()
    assert stopped.value.code == 2
    assert printed.out == ""
    assert printed.err.count("\n") == 1
    assert printed.err.startswith("ss_vae_m2.py: error: ")
    assert message in printed.err
    assert files(tmp_path) == []


def test_exit_status(tmp_path):
    done = run("--epochs", 0, folder=tmp_path)
    assert done.returncode == 2
    assert done.stderr == "ss_vae_m2.py: error: --epochs must be at least 1, got 0\n"
    assert files(tmp_path) == []


@pytest.fixture
def in_process(monkeypatch, tmp_path, capsys):
    """Runs the example here, in an empty folder, and returns exit status and what stands on standard error."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(EXAMPLES)
    import ss_vae_m2

    def run_here(*flags):
        try:
            ss_vae_m2.main([*SMALL, *map(str, flags)])
        except SystemExit as stopped:
            return stopped.code, capsys.readouterr().err
        return 0, capsys.readouterr().err

    return run_here


def test_another_run_s_folder_is_refused(in_process, tmp_path):
    assert in_process("--epochs", 1, "--out", "run")[0] == 0
    before = {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*")}
    status, message = in_process("--epochs", 1, "--out", "run")
    assert status == 2
    assert "holds another run; add --resume or --overwrite, or choose another folder" in message
    status, message = in_process("--epochs", 2, "--out", "run", "--resume", "--seed", 5, "--z-dim", 4)
    assert status == 2
    assert "seed was 0 and is now 5" in message
    assert "z_dim was 3 and is now 4" in message
    assert before == {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*")}


def test_a_folder_of_other_files_is_refused(in_process, tmp_path):
    (tmp_path / "photos").mkdir()
    (tmp_path / "photos" / "cat.png").write_bytes(b"")
    status, message = in_process("--epochs", 1, "--out", "photos", "--overwrite")
    assert status == 2
    assert "holds files that are not a run's" in message
    assert files(tmp_path) == ["cat.png"]


@pytest.mark.parametrize("damage", ["cut off", "not a checkpoint"])
def test_a_damaged_checkpoint_is_refused(in_process, tmp_path, damage):
    assert in_process("--epochs", 1, "--out", "run")[0] == 0
    path = tmp_path / "run" / "checkpoints" / "last.ckpt"
    path.write_bytes(path.read_bytes()[:500] if damage == "cut off" else b"hello")
    status, message = in_process("--epochs", 2, "--out", "run", "--resume")
    assert status == 2
    assert "last.ckpt is cut off or not a checkpoint" in message


def test_a_loss_that_breaks_ends_with_1_and_names_epoch_step_and_term(in_process):
    status, message = in_process("--epochs", 3, "--learning-rate", 1e30, "--out", "run")
    assert status == 1
    assert "epoch 1, step 2: " in message
    assert message.count("\n") == 1


@pytest.mark.parametrize(
    ("data", "flags"),
    [
        ("moons", ["--labels", "20"]),
        ("circles", ["--labels", "50", "--scale", "0.1"]),
        ("{archives}/good.npz", ["--labels", "6"]),
        ("{archives}/real.npz", ["--labels", "6"]),
        ("{archives}/few.npz", []),
    ],
)
def test_other_data(in_process, archives, tmp_path, data, flags):
    data = data.format(archives=archives)
    assert in_process("--data", data, *flags, "--epochs", 2, "--batch-size", 1000, "--out", "run") == (0, "")
    assert files(tmp_path / "run") == sorted(RUN)
    assert 0 <= summary(tmp_path / "run")["test_accuracy"] <= 1


def test_the_paper_s_task(in_process, data_root, tmp_path):
    flags = ["--data", "mnist", "--data-root", data_root, "--labels", 100, "--epochs", 1, "--batch-size", 2000]
    assert in_process(*flags, "--out", "run", "--precision", "bf16") == (0, "")
    assert summary(tmp_path / "run")["baseline_accuracy"] > 0.6
