"""The examples as a user runs them: what they print, write, refuse, and survive."""

import json
import os
import signal
import subprocess
import sys
import time
from contextlib import contextmanager
from textwrap import dedent

import numpy as np
import pytest
from semipyro.data import load
from semipyro.inference import evaluate

from helpers.example_runs import EXAMPLES, complaints, files, leave_figures_empty, numbers, render_once, summary, times

SMALL = ["--hidden", "12", "--z-dim", "3", "--batch-size", "300", "--learning-rate", "0.03"]
FIGURES = ["analogies", "class_samples", "confusion_matrix", "latent_pca", "latent_tsne", "training_curves"]
RUN = ["best.ckpt", "last.ckpt", *(f"{name}.png" for name in FIGURES), "metrics.csv", "settings.json", "summary.json"]


def command(*flags):
    return [sys.executable, "-W", "error", str(EXAMPLES / "ss_vae_m2.py"), *map(str, flags)]


def run(*flags, folder=None):
    """The finished process."""
    return subprocess.run(command(*flags), capture_output=True, text=True, cwd=folder, timeout=300, check=False)


@contextmanager
def started(*flags, out):
    """A process in the middle of its training: the first checkpoint is there."""
    handler = signal.signal(signal.SIGINT, signal.default_int_handler)  # a shell's background jobs ignore Ctrl-C
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    process = subprocess.Popen(command(*flags, "--out", out), stderr=subprocess.PIPE, text=True, env=environment)
    signal.signal(signal.SIGINT, handler)
    deadline = time.monotonic() + 120
    while not (out / "checkpoints" / "last.ckpt").exists() and time.monotonic() < deadline:
        time.sleep(0.002)
    with process:
        yield process
        process.kill()  # nothing is left of it, whatever the test did


def a_run(folder):
    """A folder that looks like a finished run's."""
    (folder / "checkpoints").mkdir(parents=True)
    (folder / "checkpoints" / "last.ckpt").write_text("")
    (folder / "settings.json").write_text('{"paper": "m2"}')


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
    promised = "paper data labels seed epochs seconds test_accuracy baseline_accuracy bound versions"
    assert set(promised.split()) <= set(found)
    assert (found["paper"], found["data"], found["labels"], found["epochs"]) == ("m2", "digits", 100, 4)
    assert {"python", "torch", "pyro-ppl", "lightning", "semipyro"} <= set(found["versions"])
    assert len(numbers(folder)) == 4
    assert f"{found['test_accuracy']:.1%}" in done.stdout
    assert f"{found['baseline_accuracy']:.1%}" in done.stdout
    assert "by accuracy on the 359 validation labels" in done.stdout
    assert "runs/ss_vae_m2" in done.stdout
    assert done.stderr == ""


def test_a_run_without_a_terminal_says_what_it_does_and_how_far_it_is(finished):
    first, *lines = finished[1].stdout.splitlines()
    for part in ("M2 on digits", "1079 training rows", "100 labels (10 of each class)", "D = 64, K = 10", "bernoulli"):
        assert part in first
    assert "4 epochs" in first
    assert "runs/ss_vae_m2" in first
    assert [line.split(",")[0].split(":")[0] for line in lines[:4]] == [f"epoch {n}" for n in range(1, 5)]
    for part in ("loss", "validation bound", "validation accuracy", " s"):
        assert part in lines[0]


def test_the_lines_that_a_run_prints_load_its_best_model(finished, monkeypatch):
    """From the folder alone: what settings.json says builds the objective, and its accuracy is the summary's."""
    folder, done = finished
    monkeypatch.chdir(folder.parent.parent)
    code = [line for line in done.stdout.splitlines() if line.startswith("    ")]
    names = {}
    exec(dedent("\n".join(line for line in code if "test accuracy" not in line)), names)
    settings, found = json.loads((folder / "settings.json").read_text()), summary(folder)
    assert settings["build"].items() >= {"x_dim": 64, "y_dim": 10, "likelihood": "bernoulli"}.items()
    assert settings.items() >= {"paper": "m2", "labels": 100, "epochs": 4, "binarize": True}.items()
    test = load("digits").test
    assert evaluate(names["objective"], test.x, test.y)["accuracy"] == found["test_accuracy"]


def test_the_baseline_learns_from_the_labels_and_is_not_the_model(finished):
    found = summary(finished[0])
    assert 0.7 < found["baseline_accuracy"] < 1
    assert found["baseline_accuracy"] != found["test_accuracy"]


def test_a_seed_repeats_a_run_to_the_last_digit_and_another_does_not(finished, in_process, tmp_path):
    same, other = tmp_path / "0", tmp_path / "1"
    done = run(*SMALL, "--epochs", 4, "--out", same, "--quiet", "--no-figures")
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
    assert in_process("--epochs", 4, "--seed", 1, "--out", other, "--quiet").returncode == 0
    assert numbers(same) == numbers(finished[0])
    measured = ("test_accuracy", "baseline_accuracy", "bound", "best_epoch")
    assert [summary(same)[name] for name in measured] == [summary(finished[0])[name] for name in measured]
    assert numbers(other) != numbers(same)


def test_a_killed_run_resumes_to_the_same_numbers(finished, tmp_path):
    """kill -9 of a real process in mid-run; nothing half-written is left, and the end is the same."""
    flags = [*SMALL, "--epochs", 4, "--quiet", "--no-figures"]
    with started(*flags, out=tmp_path / "run") as process:
        process.send_signal(signal.SIGKILL)
    assert not (tmp_path / "run" / "summary.json").exists()
    assert 1 <= len(numbers(tmp_path / "run")) < 4
    done = run(*flags, "--out", tmp_path / "run", "--resume")
    assert done.returncode == 0, done.stderr
    assert numbers(tmp_path / "run") == numbers(finished[0])
    for name in ("test_accuracy", "baseline_accuracy", "bound"):
        assert summary(tmp_path / "run")[name] == summary(finished[0])[name]


@pytest.mark.parametrize(("sent", "status"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_a_run_that_is_stopped_says_so_and_can_be_resumed(in_process, tmp_path, sent, status):
    with started(*SMALL, "--epochs", 1000, "--quiet", out=tmp_path / "run") as process:
        process.send_signal(sent)
        _, message = process.communicate(timeout=60)
    assert process.returncode == status
    assert message.strip() == "ss_vae_m2.py: stopped; --resume goes on from the last whole epoch"
    done = len(numbers(tmp_path / "run"))
    assert in_process("--epochs", done + 1, "--out", "run", "--resume").returncode == 0
    assert len(numbers(tmp_path / "run")) == done + 1


def test_a_run_can_be_resumed_for_more_epochs_and_not_for_fewer(in_process, tmp_path):
    assert in_process("--epochs", 2, "--out", "run").returncode == 0
    assert in_process("--epochs", 3, "--out", "run", "--resume").returncode == 0
    assert len(numbers(tmp_path / "run")) == summary(tmp_path / "run")["epochs"] == 3
    assert json.loads((tmp_path / "run" / "settings.json").read_text())["epochs"] == 3
    before = times(tmp_path)
    done = in_process("--epochs", 2, "--out", "run", "--resume")
    assert done.returncode == 2
    assert "--epochs 2: the run in run has 3 behind it" in done.stderr
    assert times(tmp_path) == before


def test_a_linear_decay_ends_with_the_run_and_cannot_be_resumed_for_more_epochs(in_process, tmp_path):
    flags = ["--linear-decay-from", 0.5, "--learning-rate", 0.01, "--out", "run"]
    assert in_process("--epochs", 4, *flags).returncode == 0
    rates = [float(row["learning_rate"]) for row in numbers(tmp_path / "run")]
    assert rates == pytest.approx([0.01, 0.01, 0.01, 0.005])
    done = in_process("--epochs", 6, *flags, "--resume")
    assert done.returncode == 2
    assert "the run in run has other settings: epochs was 4 and is now 6" in done.stderr


def test_overwrite_starts_afresh_and_touches_nothing_else(in_process, tmp_path):
    assert in_process("--epochs", 2, "--out", "run").returncode == 0
    (tmp_path / "run" / "notes.txt").write_text("mine")
    for folder in (".", "checkpoints", "figures"):  # what a process leaves that is killed while it writes
        (tmp_path / "run" / folder / ".last.ckpt.123.partial").write_text("half")
    assert in_process("--epochs", 1, "--out", "run", "--overwrite").returncode == 0
    assert len(numbers(tmp_path / "run")) == 1
    assert (tmp_path / "run" / "notes.txt").read_text() == "mine"
    assert files(tmp_path / "run") == sorted([*RUN, "notes.txt"])


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (["--device", "cdua"], "argument --device: invalid choice: 'cdua'"),
        (["--labels", "7"], "--labels must be from 10"),
        (["--scale", "0.3"], "--scale needs a normal likelihood"),
        (["--alpha", "1", "--labelled-weight", "1"], "--alpha sets the weights; leave --labelled-weight"),
        (["--data", "{archives}/huge.npz", "--labels", "3"], "NaN"),
        (["--resume"], "argument --resume: not allowed with argument --overwrite"),
    ],
)
def test_overwrite_deletes_nothing_before_all_else_is_known_to_be_right(in_process, archives, tmp_path, flags, message):
    a_run(tmp_path / "run")
    before = times(tmp_path)
    done = in_process("--overwrite", "--out", "run", *(flag.format(archives=archives) for flag in flags))
    assert done.returncode == 2
    assert message in done.stderr
    assert times(tmp_path) == before


def test_overwrite_leaves_checkpoints_that_are_not_a_run_s(in_process, tmp_path):
    a_run(tmp_path / "run")
    (tmp_path / "run" / "checkpoints" / "notes.txt").write_text("mine")
    before = times(tmp_path)
    done = in_process("--overwrite", "--out", "run")
    assert done.returncode == 2
    assert "run/checkpoints/notes.txt is not a run's file" in done.stderr
    assert times(tmp_path) == before


def test_help_explains_every_flag_with_its_default(in_process):
    text = " ".join(in_process("--help").stdout.split())
    promised = (
        "data data-root labels epochs batch-size labelled-batch-size learning-rate seed device precision out resume"
    )
    own = "z-dim hidden likelihood labelled-weight classification-weight alpha"
    for flag in (*promised.split(), *own.split()):
        assert f"--{flag} " in text
    for default in ("0.003", "0.0", "0", "0.1", "50", "digits", "[500]"):
        assert f"(default: {default})" in text
    for default in ("None", "False"):
        assert f"(default: {default})" not in text
    assert "arXiv:1406.5298" in text
    assert "MNIST's validation images" in text


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
    np.savez(folder / "seven.npz", x=random.random((210, 5)), y=np.arange(210) % 7)
    np.savez(folder / "colour.npz", x=random.random((60, 3, 4, 4)), y=y)
    np.savez(folder / "grey.npz", x=random.random((60, 1, 4, 4)), y=y)
    np.savez(folder / "tiny.npz", x=random.random((10, 4)), y=np.arange(10) % 2)
    np.savez(folder / "huge.npz", x=1e38 * x, y=y)
    np.savez(folder / "nan.npz", x=np.where(x > 0.99, np.nan, x), y=y)
    np.savez(folder / "missing_class.npz", x=x, y=np.where(y == 1, 2, y))
    (folder / "text.npz").write_text("x, y")
    whole = (folder / "good.npz").read_bytes()
    (folder / "short.npz").write_bytes(whole[: len(whole) // 2])
    return folder


BAD = [
    (["--labels", "7"], "--labels must be from 10, one for each class of digits, to 1040, as many"),
    (["--labels", "0"], "--labels must be from 10, one for each class of digits, to 1040, as many"),
    (["--labels", "-1"], "argument --labels: must be from 0 to 2**63 - 1, got -1"),
    (["--labels", "5000"], "--labels must be from 10, one for each class of digits, to 1040, as many"),
    (["--labels", "many"], "argument --labels: invalid int value"),
    (["--labels", "5", "--data", "{archives}/few.npz"], "keeps its own, since some rows have none (y = -1)"),
    (["--data", "{archives}/good.npz"], "to 36, as many of each as class 0 has, got 100"),
    (["--epochs", "0"], "argument --epochs: must be at least 1, got 0"),
    (["--epochs", "-2"], "argument --epochs: must be at least 1, got -2"),
    (["--batch-size", "0"], "argument --batch-size: must be at least 1"),
    (["--labelled-batch-size", "0"], "argument --labelled-batch-size: must be at least 1"),
    (["--seed", "-1"], "argument --seed: must be from 0 to 2**63 - 1, got -1"),
    (["--seed", str(2**63)], "argument --seed: must be from 0 to 2**63 - 1"),
    (["--learning-rate", "-1"], "argument --learning-rate: must be positive"),
    (["--learning-rate", "nan"], "argument --learning-rate: must be positive"),
    (["--weight-decay", "inf"], "argument --weight-decay: must be finite"),
    (["--data", "imagenet"], "--data must be one of digits, moons"),
    (["--data", "nowhere.npz"], "nowhere.npz"),
    (["--data", "mnist", "--data-root", "nowhere"], "torchvision.datasets.MNIST"),
    (["--device", "abacus"], "argument --device: invalid choice: 'abacus' (choose from"),
    (["--precision", "8"], "argument --precision: invalid choice: '8' (choose from"),
    (["--activation", "sigmoid"], "argument --activation: invalid choice: 'sigmoid' (choose from"),
    (["--likelihood", "poisson"], "argument --likelihood: invalid choice: 'poisson' (choose from"),
    (["--data", "moons", "--likelihood", "bernoulli"], "--likelihood bernoulli needs data in [0, 1], but moons has"),
    (["--data", "moons", "--binarize"], "--binarize needs data in [0, 1], but moons has values from"),
    (["--hidden", "0"], "argument --hidden: must be at least 1"),
    (["--z-dim", "0"], "argument --z-dim: must be at least 1"),
    (["--scale", "0", "--likelihood", "normal"], "argument --scale: must be positive"),
    (["--scale", "0.3"], "--scale needs a normal likelihood; add --likelihood normal"),
    (["--num-samples", "0"], "argument --num-samples: must be at least 1"),
    (["--classification-weight", "-1"], "argument --classification-weight: must be finite and not negative"),
    (["--alpha", "0.1", "--classification-weight", "1"], "--alpha sets the weights; leave --labelled-weight"),
    (["--alpha", "0.1", "--data", "{archives}/good.npz", "--labels", "36"], "need unlabelled rows"),
    (["--kl-warmup", "-1"], "argument --kl-warmup: must be from 0"),
    (["--gradient-clip", "0"], "argument --gradient-clip: must be positive"),
    (["--out", "{archives}/text.npz"], "text.npz is a file; name a folder"),
    (["--out", "{archives}/text.npz/run"], "text.npz"),
    (["--resume", "--overwrite"], "argument --overwrite: not allowed with argument --resume"),
    (["--no-such-flag"], "unrecognized arguments: --no-such-flag"),
    (["--resume"], "holds no run"),
    (["--data", "{archives}/nox.npz"], "'x'"),
    (["--data", "{archives}/objects.npz"], "objects"),
    (["--data", "{archives}/length.npz"], "59"),
    (["--data", "{archives}/nan.npz"], "NaN"),
    (["--data", "{archives}/huge.npz", "--labels", "3"], "NaN"),
    (
        ["--data", "{archives}/missing_class.npz", "--labels", "3"],
        "must have rows of all classes from 0 to 2, got none of [1]",
    ),
    (["--data", "{archives}/text.npz"], "text.npz must be an .npz archive"),
    (["--data", "{archives}/short.npz"], "short.npz must be an .npz archive"),
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
    assert done.stderr == "ss_vae_m2.py: error: argument --epochs: must be at least 1, got 0\n"
    assert files(tmp_path) == []


@pytest.fixture(scope="module")
def rendered():
    """The kinds of figures that were rendered so far."""
    return set()


@pytest.fixture
def drawing(monkeypatch, tmp_path, capsys, rendered):
    """Runs the example here, in an empty folder, and returns what a process of its own would have ended with."""
    monkeypatch.chdir(tmp_path)
    render_once(monkeypatch, rendered)
    monkeypatch.syspath_prepend(EXAMPLES)
    import ss_vae_m2
    from shared.baseline import train_on_labels

    monkeypatch.setitem(train_on_labels.__kwdefaults__, "steps", 20)

    def run_here(*flags):
        status = 0
        try:
            ss_vae_m2.main([*SMALL, *map(str, flags)])
        except SystemExit as stopped:
            status = stopped.code
        return subprocess.CompletedProcess(flags, status, *capsys.readouterr())

    return run_here


@pytest.fixture
def in_process(drawing, monkeypatch):
    """The same, with empty figures."""
    leave_figures_empty(monkeypatch)
    return drawing


def test_another_run_s_folder_is_refused(in_process, tmp_path):
    assert in_process("--epochs", 1, "--out", "run").returncode == 0
    before = times(tmp_path)
    done = in_process("--epochs", 1, "--out", "run")
    assert done.returncode == 2
    assert "holds another run; add --resume or --overwrite, or choose another folder" in done.stderr
    done = in_process("--epochs", 2, "--out", "run", "--resume", "--seed", 5, "--z-dim", 4)
    assert done.returncode == 2
    assert done.stderr.endswith("has other settings: seed was 0 and is now 5; z_dim was 3 and is now 4\n")
    assert times(tmp_path) == before


@pytest.mark.parametrize("name", ["cat.png", "settings.json"])
def test_a_folder_of_other_files_is_refused(in_process, tmp_path, name):
    (tmp_path / "photos").mkdir()
    (tmp_path / "photos" / name).write_text("[]")
    done = in_process("--epochs", 1, "--out", "photos", "--overwrite")
    assert done.returncode == 2
    assert "not a run's" in done.stderr or "not the settings file of a run" in done.stderr
    assert files(tmp_path) == [name]


@pytest.mark.parametrize("text", ["[]", "{", "{}"])
def test_settings_that_are_none_are_not_resumed(in_process, tmp_path, text):
    a_run(tmp_path / "run")
    (tmp_path / "run" / "settings.json").write_text(text)
    done = in_process("--epochs", 1, "--out", "run", "--resume")
    assert done.returncode == 2
    assert "settings.json is not the settings file of a run" in done.stderr


@pytest.mark.parametrize("damage", ["cut off", "not a checkpoint"])
def test_a_damaged_checkpoint_is_refused(in_process, tmp_path, damage):
    assert in_process("--epochs", 1, "--out", "run").returncode == 0
    path = tmp_path / "run" / "checkpoints" / "last.ckpt"
    path.write_bytes(path.read_bytes()[:500] if damage == "cut off" else b"hello")
    before = times(tmp_path)
    done = in_process("--epochs", 2, "--out", "run", "--resume")
    assert done.returncode == 2
    assert "last.ckpt is cut off or not a checkpoint" in done.stderr
    assert times(tmp_path) == before


def test_a_loss_that_breaks_ends_with_1_and_names_epoch_step_and_term(in_process):
    done = in_process("--epochs", 3, "--learning-rate", 1e30, "--out", "run")
    assert done.returncode == 1
    assert "epoch 1, step 2: " in done.stderr
    assert done.stderr.count("\n") == 1


def test_alpha_gives_the_weights_of_the_paper(in_process, tmp_path):
    """N_l = 100 and N_u = 979: the weights are N_l / N_u and alpha N / N_u."""
    assert in_process("--epochs", 1, "--out", "run", "--alpha", 0.1).returncode == 0
    build = json.loads((tmp_path / "run" / "settings.json").read_text())["build"]
    assert build["labelled_weight"] == pytest.approx(100 / 979)
    assert build["classification_weight"] == pytest.approx(0.1 * 1079 / 979)


@pytest.mark.parametrize(
    ("data", "flags"),
    [
        ("moons", ["--labels", "20"]),
        ("circles", ["--labels", "50", "--scale", "0.1"]),
        ("{archives}/good.npz", ["--labels", "6"]),
        ("{archives}/real.npz", ["--labels", "6"]),
        ("{archives}/colour.npz", ["--labels", "6", "--seed", "5000000000"]),
        ("{archives}/grey.npz", ["--labels", "6"]),
    ],
)
def test_other_data(drawing, archives, tmp_path, data, flags):
    data = data.format(archives=archives)
    done = drawing("--data", data, *flags, "--epochs", 2, "--batch-size", 1000, "--out", "run")
    assert (done.returncode, complaints(done)) == (0, [])
    assert files(tmp_path / "run") == sorted(RUN)
    assert 0 <= summary(tmp_path / "run")["test_accuracy"] <= 1


@pytest.mark.parametrize(
    ("name", "flags", "labels", "said"),
    [
        ("seven", [], 98, "98 labels (14 of each class)"),
        ("seven", ["--labels", "20"], 14, "14 labels (2 of each class)"),
        ("few", [], 9, "9 labels (its own)"),
        ("tiny", ["--labels", "2"], 2, "2 labels (1 of each class)"),
    ],
)
def test_the_labels_of_a_file(drawing, archives, tmp_path, name, flags, labels, said):
    """As many of each class as can be, or those that the file has; a test set of two rows is not projected."""
    done = drawing("--data", archives / f"{name}.npz", *flags, "--epochs", 1, "--out", "run")
    assert (done.returncode, complaints(done)) == (0, [])
    assert said in done.stdout.splitlines()[0]
    assert summary(tmp_path / "run")["labels"] == labels


def test_the_paper_s_task(in_process, data_root, tmp_path):
    flags = ["--data", "mnist", "--data-root", data_root, "--labels", 100, "--epochs", 1, "--batch-size", 2000]
    assert in_process(*flags, "--out", "run", "--precision", "auto").returncode == 0
    assert summary(tmp_path / "run")["test_accuracy"] > 0.6
