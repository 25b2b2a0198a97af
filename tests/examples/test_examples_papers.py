"""The examples of all papers, form by form: what a short run prints, writes, draws, goes on with and refuses."""

import argparse
import json
import re
from functools import cache
from importlib import import_module
from textwrap import dedent
from typing import NamedTuple

import numpy as np
import pytest
import torch
from matplotlib.figure import Figure
from semipyro import plots
from semipyro.data import binarize, load
from semipyro.inference import accuracy, evaluate
from semipyro.inference.training.checkpoint import objective_state, read_checkpoint
from semipyro.papers import PAPERS

from helpers.example_runs import (
    EXAMPLES,
    call,
    complaints,
    files,
    leave_figures_empty,
    numbers,
    render_once,
    summary,
    times,
)

OTHERS = {"compare_guides", "own_data", "reproduce", "tune"}  # scripts of no paper
SCRIPTS = sorted(path.stem for path in EXAMPLES.glob("*.py") if path.stem not in OTHERS)
SMALL = {
    "ss_vae_m1": "--hidden 12 --z-dim 3 --learning-rate 0.003",
    "ss_adgm": "--hidden 12 --z-dim 3 --a-dim 4 --test-samples 3",
    "semi_unsupervised": "--hidden 12 --z-dim 3 --a-dim 4 --test-samples 3",
    "ss_cagem": "--hidden 12 --z1-dim 3 --z2-dim 3 --z2-hidden 12 --test-samples 3 --kl-warmup 1",
    "ss_latent_classifier": "--hidden 12 --z-dim 3 --test-samples 3",
    "untapped": "",
}
EPOCHS = 2
EVERY = {"training_curves", "latent_pca", "latent_tsne"}  # the figures of every example, and of every classifier
CLASSIFIED = EVERY | {"confusion_matrix"}
FLAT = {"training_curves", "latent_space", "confusion_matrix"}  # a latent of two dimensions is drawn as it is


class Form(NamedTuple):
    """A script with its flags, the row of PAPERS that it trains, the folder that it writes, and the figures there."""

    script: str
    flags: str
    paper: str
    folder: str
    figures: set[str]


CLUSTERS = CLASSIFIED | {"class_samples", "cluster_kl"}
GENERATED = CLASSIFIED | {"class_samples", "analogies"}
EXTRACTED = {"class_samples", "analogies", "digit_extraction", "digit_extraction_m2"}
MADE_OVER = CLASSIFIED | {"unit_kl", "reconstructions"}
FORMS = {
    "m1": Form("ss_vae_m1", "", "m1", "ss_vae_m1", EVERY | {"unit_kl", "reconstructions"}),
    "m1-m2": Form("ss_vae_m1_m2", "", "m1-m2", "ss_vae_m1_m2", CLASSIFIED | {"class_samples"}),
    "m2": Form("ss_vae_m2", "", "m2", "ss_vae_m2", GENERATED),
    "partial": Form("ss_vae_m2", "--summed-classes 2 --out runs/partial", "m2", "partial", GENERATED),
    "adversarial": Form("ss_vae_m2", "--adversary", "m2-adversarial", "ss_vae_m2_adversarial", GENERATED),
    "workshop": Form("ss_adgm", "", "adgm-workshop", "ss_adgm", GENERATED | {"unit_kl"}),
    "icml": Form("ss_adgm", "--form icml", "adgm", "ss_adgm_icml", GENERATED | {"unit_kl"}),
    "deterministic": Form(
        "ss_adgm", "--form deterministic", "adgm-deterministic", "ss_adgm_deterministic", GENERATED | {"unit_kl"}
    ),
    "sdgm": Form("ss_adgm", "--form sdgm", "sdgm", "ss_adgm_sdgm", GENERATED | {"unit_kl"}),
    "gm-dgm": Form("semi_unsupervised", "", "gm-dgm", "semi_unsupervised", CLUSTERS | {"component_kl"}),
    "agm-dgm": Form(
        "semi_unsupervised", "--model agm-dgm", "agm-dgm", "semi_unsupervised_agm_dgm", CLUSTERS | {"component_kl"}
    ),
    "semi-m2": Form("semi_unsupervised", "--model m2", "m2", "semi_unsupervised_m2", CLUSTERS),
    "semi-adgm": Form("semi_unsupervised", "--model adgm", "adgm", "semi_unsupervised_adgm", CLUSTERS),
    "clusters": Form(
        "semi_unsupervised", "--labels 0 --out runs/clusters", "gm-dgm", "clusters", CLUSTERS | {"component_kl"}
    ),
    "cagem": Form("ss_cagem", "", "cagem", "ss_cagem", MADE_OVER | {"class_samples", "latent_pca_z1"}),
    "mesh": Form(
        "ss_cagem", "--z2-dim 2 --out runs/mesh", "cagem", "mesh",
        FLAT | {"unit_kl", "reconstructions", "class_samples", "latent_pca_z1", "mesh"},
    ),
    "ours": Form("ss_latent_classifier", "", "latent-classifier", "ss_latent_classifier", MADE_OVER | {"analogies"}),
    "tight": Form(
        "ss_latent_classifier", "--form tight", "latent-classifier-tight", "ss_latent_classifier_tight",
        MADE_OVER | {"analogies"},
    ),
    "simplified": Form(
        "ss_latent_classifier", "--form simplified", "simplified", "ss_latent_classifier_simplified", MADE_OVER
    ),
    "appendix-c": Form(
        "ss_latent_classifier", "--form appendix-c", "appendix-c", "ss_latent_classifier_appendix_c", MADE_OVER
    ),
    "untapped": Form("untapped", "", "untapped", "untapped", FLAT | EXTRACTED),
    "relaxed": Form(
        "untapped", "--temperature 1 --gradient relaxed --out runs/relaxed", "untapped", "relaxed", FLAT | EXTRACTED
    ),
}  # fmt: skip


@pytest.fixture(scope="module")
def scripts():
    """The modules by name; what learns from the labels alone takes 20 steps instead of 1,000."""
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(EXAMPLES)
        patch.setitem(import_module("shared.baseline").train_on_labels.__kwdefaults__, "steps", 20)
        yield {name: import_module(name) for name in SCRIPTS}


@pytest.fixture(scope="module")
def own(tmp_path_factory):
    """The user's own files: 400 of the digits, real values, points, values in [0, 1], and what is too large."""
    folder = tmp_path_factory.mktemp("own")
    digits, random = load("digits"), np.random.default_rng(0)
    order = np.concatenate([(digits.train.y == k).nonzero().flatten()[:40] for k in range(10)])
    np.savez(folder / "little.npz", x=digits.train.x[order].reshape(-1, 8, 8), y=digits.train.y[order])
    x, y = random.random((60, 5)), np.repeat(np.arange(3), 20)
    np.savez(folder / "unit.npz", x=x, y=y)
    np.savez(folder / "real.npz", x=4 * x - 2, y=y)
    np.savez(folder / "points.npz", x=4 * x[:, :2] - 2, y=y)
    np.savez(folder / "few.npz", x=x, y=np.where(np.arange(60) % 4 == 0, y, -1))
    np.savez(folder / "huge.npz", x=1e38 * x, y=y)
    np.savez(folder / "tiny.npz", x=x[:10], y=np.arange(10) % 2)
    return folder


@pytest.fixture(scope="module")
def rendered():
    """The kinds of figures that were rendered so far."""
    return set()


@pytest.fixture
def run(scripts, own, tmp_path, monkeypatch, rendered):
    """Runs a script here, in an empty folder, and returns what a process of its own would have ended with."""
    monkeypatch.chdir(tmp_path)
    render_once(monkeypatch, rendered)
    return lambda script, flags: call(scripts[script], f"{small(script)} --data {own}/little.npz {flags}", own)


@pytest.fixture
def undrawn(monkeypatch):
    """Figures are empty, and their files too."""
    leave_figures_empty(monkeypatch)


def small(script):
    """Flags of a short run of small networks."""
    return f"--batch-size 60 --learning-rate 0.03 --epochs {EPOCHS} {SMALL.get(script, '--hidden 12 --z-dim 3')}"


@pytest.fixture(scope="module")
def finished(scripts, own, tmp_path_factory, rendered):
    """The folder of a form's finished run and what it printed, by the form's name; each is run once."""
    home = tmp_path_factory.mktemp("home")

    @cache
    def finish(name):
        if name == "m1-m2":
            finish("m1")
        form = FORMS[name]
        with pytest.MonkeyPatch.context() as patch:
            patch.chdir(home)
            render_once(patch, rendered)
            done = call(scripts[form.script], f"{small(form.script)} --data {own}/little.npz {form.flags}", own)
        assert (done.returncode, complaints(done)) == (0, [])
        return home / "runs" / form.folder, done

    return finish


forms = pytest.mark.parametrize("name", list(FORMS))
scripts_by_name = pytest.mark.parametrize("script", SCRIPTS)


def test_every_row_of_the_table_and_every_form_of_a_script_is_run(scripts):
    assert {form.paper for form in FORMS.values()} == set(PAPERS)
    assert {form.script for form in FORMS.values()} == set(SCRIPTS)
    for script, module in scripts.items():
        flags = " ".join(f"{form.flags} " for form in FORMS.values() if form.script == script)
        for action in module.parser()._actions:
            if action.dest in ("form", "model"):
                missing = [c for c in action.choices if c != action.default and f"{action.dest} {c} " not in flags]
                assert not missing, f"{script}.py has forms that no test runs: {missing}"


@forms
def test_a_run_leaves_its_files_and_prints_what_its_summary_holds(finished, name):
    folder, done = finished(name)
    form, found = FORMS[name], summary(folder)
    written = {"best.ckpt", "last.ckpt", "metrics.csv", "settings.json", "summary.json"}
    assert set(files(folder)) == written | {f"{figure}.png" for figure in form.figures}
    promised = "paper data labels seed epochs seconds test_accuracy baseline_accuracy bound versions"
    assert set(promised.split()) <= set(found)
    assert (found["paper"], found["epochs"], found["seed"]) == (form.paper, EPOCHS, 0)
    assert found["labels"] == {"clusters": 0, "untapped": 120, "relaxed": 120}.get(name, 100)
    assert {"python", "torch", "pyro-ppl", "lightning", "semipyro"} <= set(found["versions"])
    assert len(numbers(folder)) == EPOCHS
    for measure in ("test_accuracy", "baseline_accuracy"):
        assert 0 < found[measure] < 1
        assert f"{found[measure]:.1%}" in done.stdout
    assert f"Test bound {found['bound']:.2f} nats" in done.stdout
    if form.paper == "cagem":  # of its two classifiers, the paper reports p(y | x)
        assert re.search(rf"by q\(y\|x\) +{found['test_accuracy_q']:.1%}\n", done.stdout)
    assert f"runs/{form.folder}" in done.stdout.splitlines()[1 if name == "m1-m2" else 0]
    assert f"Settings, numbers, checkpoints and figures are in runs/{form.folder}." in done.stdout


@forms
def test_the_classes_in_use_are_told_with_a_warning_where_they_are_too_few(finished, name):
    folder, done = finished(name)
    found = summary(folder)
    assert ("classes_used" in found) == PAPERS[FORMS[name].paper].classifies
    if "classes_used" not in found:
        assert done.stderr == ""
        return
    k, used = json.loads((folder / "settings.json").read_text())["build"]["y_dim"], found["classes_used"]
    labelled = 0 if name == "clusters" else 10 - len(found.get("hidden_classes", []))
    assert f"On the unlabelled rows the classifier uses {used} of {k} classes." in done.stdout
    warning = f"warning: the classifier uses {used} of {k} classes on the unlabelled rows, fewer than the {labelled} "
    assert done.stderr == (f"{warning}with labels: it has collapsed\n" if used < labelled else "")


@pytest.mark.parametrize(("script", "classes"), [("ss_vae_m2", 10), ("semi_unsupervised", 5), ("untapped", 5)])
def test_the_warning_comes_below_the_number_of_labelled_classes_also_when_quiet(
    run, scripts, undrawn, monkeypatch, tmp_path, script, classes
):
    for used in (classes - 1, classes):
        monkeypatch.setattr(scripts[script], "classes_used", lambda *_, used=used: used)
        done = run(script, f"--epochs 1 --quiet --out {used}")
        assert (done.returncode, done.stdout) == (0, "")
        assert summary(tmp_path / str(used))["classes_used"] == used
        assert (f"fewer than the {classes} with labels" in done.stderr) == (used < classes)
        assert done.stderr.count("\n") == (used < classes)


@forms
def test_a_run_that_is_resumed_ends_with_the_numbers_of_one_without_a_break(finished, run, undrawn, tmp_path, name):
    whole, form = finished(name)[0], FORMS[name]
    flags = f"{form.flags} --out again --quiet" + f" --m1 {whole.parent}/ss_vae_m1" * (name == "m1-m2")
    if name == "m1-m2":  # the folder of M1 is a setting
        assert run(form.script, f"{flags} --out whole").returncode == 0
        whole = tmp_path / "whole"
    assert run(form.script, f"{flags} --epochs 1").returncode == 0
    assert len(numbers(tmp_path / "again")) == 1
    done = run(form.script, f"{flags} --resume")
    assert (done.returncode, complaints(done)) == (0, [])
    assert numbers(tmp_path / "again") == numbers(whole)
    assert {**summary(tmp_path / "again"), "seconds": 0} == {**summary(whole), "seconds": 0}


@forms
def test_the_lines_that_a_run_prints_load_its_best_model(finished, monkeypatch, own, name):
    folder, done = finished(name)
    monkeypatch.chdir(folder.parent.parent)
    names = {}
    exec(dedent(done.stdout.split("To use the model in Python:")[1]), names)
    objective, best = names["objective"], objective_state(read_checkpoint(folder / "checkpoints" / "best.ckpt"))
    assert {key: value.tolist() for key, value in objective.state_dict().items()} == {
        key: value.tolist() for key, value in best.items()
    }
    if name != "m1-m2":  # whose x are features
        test, binary = load(own / "little.npz").test, json.loads((folder / "settings.json").read_text())["binarize"]
        torch.manual_seed(0)
        found = [evaluate(objective, test.x, bound_x=binarize(test.x, seed=0) if binary else None) for _ in range(20)]
        bounds = torch.tensor([terms["unlabelled"] for terms in found])
        assert abs(bounds.mean() - summary(folder)["bound"]) < 6 * bounds.std() + 1e-4


@pytest.mark.parametrize("script", [script for script in SCRIPTS if script != "ss_vae_m1"])
def test_every_script_with_classes_can_sum_some_of_them(run, undrawn, tmp_path, script):
    assert run(script, "--summed-classes 2 --epochs 1 --quiet --out run").returncode == 0
    assert json.loads((tmp_path / "run" / "settings.json").read_text())["build"]["summed_classes"] == 2


@pytest.mark.parametrize("script", ["ss_vae_m2", "ss_adgm", "ss_cagem", "ss_latent_classifier", "untapped"])
def test_the_confusion_matrix_is_that_of_the_accuracy_that_is_told(run, undrawn, monkeypatch, tmp_path, script):
    """Averaged over as many draws, of p(y | x) in CaGeM's case, and after the matching of untapped."""
    drawn = []

    def draw(classifier, x, y, **_):
        torch.manual_seed(0)
        drawn.append(accuracy(classifier, x, y))
        return Figure()

    monkeypatch.setattr(plots, "confusion_matrix", draw)
    assert run(script, "--out run").returncode == 0
    assert drawn == [summary(tmp_path / "run")["test_accuracy"]]


def test_without_labels_clusters_are_found_and_set_beside_k_means(finished):
    folder, done = finished("clusters")
    found = summary(folder)
    assert found["baseline_accuracy"] == found["kmeans_accuracy"] <= 1
    assert found["map"] == "majority class of each cluster on the validation split"
    assert "k-means with 15 clusters, without labels" in done.stdout
    assert "labels alone" not in done.stdout
    assert ", 0 labels; D = 64, K = 15 (10 classes)" in done.stdout.splitlines()[0]
    assert "labelled" not in numbers(folder)[0]  # no term of labelled rows was ever computed


def test_classes_without_labels_are_measured_by_themselves(finished):
    for name in ("gm-dgm", "untapped"):
        folder, done = finished(name)
        found, hidden = summary(folder), {"gm-dgm": [0, 1, 2, 3, 4], "untapped": [5, 6, 7, 8, 9]}[name]
        assert found["hidden_classes"] == hidden
        assert f"none of class {' '.join(map(str, hidden))}" in done.stdout.splitlines()[0]
        assert f"{found['test_accuracy_hidden']:.1%}" in done.stdout
    assert {"m2_accuracy", "m2_accuracy_hidden", "m2_cross_entropy_hidden", "test_cross_entropy_hidden"} <= set(found)
    assert f"chance {np.log(10):.2f}" in done.stdout


@pytest.mark.parametrize(
    ("flags", "given"),
    [
        ("--flow iaf --flow-length 1 --flow-amortised", {"flow": "iaf", "flow_length": 1, "flow_amortised": True}),
        ("--rank 1", {"rank": 1}),
    ],
    ids=["flow", "rank"],
)
@scripts_by_name
def test_every_script_swaps_the_posterior(run, finished, undrawn, tmp_path, script, flags, given):
    """As its saved settings have it; KL per unit, which there is none of then, is left out."""
    if script == "ss_vae_m1_m2":
        flags = f"{flags} --m1 {finished('m1')[0]}"
    done = run(script, f"{flags} --epochs 1 --out run")
    assert (done.returncode, complaints(done)) == (0, [])
    build = json.loads((tmp_path / "run" / "settings.json").read_text())["build"]
    assert {name: value for name, value in build.items() if name.startswith(("flow", "rank"))} == given
    q_z = PAPERS[summary(tmp_path / "run")["paper"]].build(**build).guide
    kinds = {type(part).__name__ for part in q_z.modules()}
    assert ("FlowNet" in kinds, "LowRankNormalNet" in kinds) == ("flow" in given, "rank" in given)
    assert not {"unit_kl.png", "cluster_kl.png"} & set(files(tmp_path / "run"))


WRONG = [
    ("ss_vae_m1", "--flow real-nvp", "argument --flow: invalid choice: 'real-nvp' (choose from 'planar', 'radial'"),
    ("ss_vae_m2", "--flow-length 3", "--flow-length belongs to --flow; name a flow, or leave it out"),
    ("ss_adgm", "--flow-amortised", "--flow-amortised belongs to --flow; name a flow, or leave it out"),
    ("ss_cagem", "--flow iaf --rank 2", "--flow and --rank are two posteriors; leave one out"),
    (
        "ss_latent_classifier",
        "--flow iaf --z-dim 1",
        "flow must suit a latent of width 1, got 'iaf', which needs 2 or more",
    ),
    (
        "ss_vae_m1_m2",
        "--flow sylvester --flow-amortised",
        "flow must have an amortised form, got 'sylvester', which has none; choose one of",
    ),
    (
        "untapped",
        "--flow planar",
        "flow must have an inverse for untapped, which scores values of z that it did not draw, got 'planar'",
    ),
    ("ss_vae_m1", "--classifier tree", "argument --classifier: invalid choice: 'tree' (choose from"),
    ("ss_vae_m1", "--alpha 1", "unrecognized arguments: --alpha 1"),
    ("ss_vae_m1", "--labels 0", "--labels must be from 10, one for each class"),
    ("ss_vae_m1_m2", "--alpha 1 --labelled-weight 1", "--alpha sets the weights; leave --labelled-weight and --class"),
    ("ss_vae_m1_m2", "--likelihood bernoulli", "M2 learns from features, which are not in [0, 1]"),
    ("ss_vae_m1_m2", "--binarize", "M2 learns from features, which are not in [0, 1]"),
    ("ss_vae_m1_m2", "--m1 here --out here", "--m1 and --out are both here; M1 and M2 each need a folder"),
    ("ss_vae_m1_m2", "--resume", "runs/ss_vae_m1_m2 holds no run; leave --resume out"),
    ("ss_vae_m1_m2", "--out {own}/tiny.npz", "tiny.npz is a file; name a folder"),
    ("ss_vae_m1_m2", "--m1 {own}/tiny.npz", "tiny.npz is a file; name a folder"),
    ("ss_vae_m2", "--adversary -1", "argument --adversary: must be finite and not negative, got -1"),
    ("ss_vae_m2", "--adversary much", "argument --adversary: invalid float value: 'much'"),
    ("ss_vae_m2", "--adversary --alpha 1 --labelled-weight 1", "--alpha sets the weights"),
    ("ss_adgm", "--form m2", "argument --form: invalid choice: 'm2' (choose from 'workshop', 'icml', 'det"),
    ("ss_adgm", "--beta 1 --classification-weight 1", "--beta sets the weights; leave --labelled-weight and --classif"),
    ("ss_adgm", "--a-dim 0", "argument --a-dim: must be at least 1, got 0"),
    ("ss_adgm", "--test-samples 0", "argument --test-samples: must be at least 1, got 0"),
    ("ss_adgm", "--form deterministic --averaged-classifier", "--averaged-classifier averages over draws of a"),
    ("ss_adgm", "--labels 0", "--labels must be from 10, one for each class"),
    ("ss_adgm", "--labels 50 --data {own}/few.npz", "few.npz keeps its own, since some rows have none (y = -1)"),
    ("semi_unsupervised", "--model vae", "argument --model: invalid choice: 'vae' (choose from 'gm-dgm', 'agm-dgm'"),
    ("semi_unsupervised", "--hide 12", "--hide must be among the classes 0 to 9 of {own}/little.npz, not all, got 12"),
    ("semi_unsupervised", "--hide 0 1 2 3 4 5 6 7 8 9", "not all, got 0 1 2 3 4 5 6 7 8 9"),
    ("semi_unsupervised", "--hide -1", "argument --hide: must be from 0 to 2**63 - 1, got -1"),
    ("semi_unsupervised", "--hide five", "argument --hide: invalid int value: 'five'"),
    ("semi_unsupervised", "--data moons", "--hide must be among the classes 0 to 1 of moons, not all, got 0 1 2 3 4"),
    ("semi_unsupervised", "--extra-classes -1", "argument --extra-classes: must be from 0"),
    ("semi_unsupervised", "--extra-classes 231", "--extra-classes makes 241 components, but there are 240 training r"),
    ("semi_unsupervised", "--alpha 1 --labelled-weight 1", "--alpha sets the weights"),
    ("semi_unsupervised", "--labels 4", "--labels must be from 5, one for each class"),
    ("semi_unsupervised", "--data {own}/huge.npz --hide 0 --labels 4", "the bound of the first rows is NaN or infin"),
    ("ss_cagem", "--beta 1 --classification-weight 1", "--beta sets the weights; leave --classification-weight out"),
    ("ss_cagem", "--labelled-weight 1", "unrecognized arguments: --labelled-weight 1"),
    ("ss_cagem", "--z-dim 3", "unrecognized arguments: --z-dim 3"),
    ("ss_cagem", "--z2-dim 0", "argument --z2-dim: must be at least 1, got 0"),
    ("ss_cagem", "--z2-hidden 0", "argument --z2-hidden: must be at least 1, got 0"),
    ("ss_cagem", "--labels 0", "--labels must be from 10, one for each class"),
    ("ss_cagem", "--data {own}/huge.npz --labels 3", "the bound of the first rows is NaN or infinite"),
    ("ss_latent_classifier", "--form loose", "argument --form: invalid choice: 'loose' (choose from 'ours', 'tight'"),
    ("ss_latent_classifier", "--zy-dim 2", "--zy-dim belongs to --form appendix-c"),
    ("ss_latent_classifier", "--zy-dim 2 --form simplified", "--zy-dim belongs to --form appendix-c"),
    ("ss_latent_classifier", "--zy-dim 3 --form appendix-c", "zy_dim must be from 1 to z_dim - 1 = 2, or None, got 3"),
    ("ss_latent_classifier", "--form tight --summed-classes 1", "y is summed inside a logarithm"),
    ("ss_cagem", "--summed-classes 0", "argument --summed-classes: must be at least 1, got 0"),
    ("ss_vae_m1", "--summed-classes 1", "unrecognized arguments: --summed-classes 1"),
    ("ss_latent_classifier", "--lambda -1", "argument --lambda: must be finite and not negative, got -1"),
    ("ss_latent_classifier", "--likelihood bernoulli --scale 0.3", "--scale needs a normal likelihood"),
    ("untapped", "--temperature 0", "argument --temperature: must be positive and finite, got 0"),
    ("untapped", "--gradient straight", "argument --gradient: invalid choice: 'straight' (choose from 'detached'"),
    ("untapped", "--half-width 0", "argument --half-width: must be positive and finite, got 0"),
    ("untapped", "--reverse-weight -1", "argument --reverse-weight: must be finite and not negative, got -1"),
    ("untapped", "--likelihood normal", "unrecognized arguments: --likelihood normal"),
    ("untapped", "--data {own}/real.npz --hide 1", "--likelihood bernoulli needs data in [0, 1], but"),
    ("untapped", "--data moons --hide 1", "--likelihood bernoulli needs data in [0, 1], but moons has values from"),
    ("untapped", "--hide", "argument --hide: expected at least one argument"),
    ("untapped", "--hide 10", "--hide must be among the classes 0 to 9 of {own}/little.npz, not all, got 10"),
    ("untapped", "--labels 0", "--labels must be from 5, one for each class"),
]


@pytest.mark.parametrize(("script", "flags", "message"), WRONG, ids=[f"{script} {flags}" for script, flags, _ in WRONG])
def test_wrong_use_ends_with_2_and_one_line_and_writes_nothing(run, own, tmp_path, script, flags, message):
    done = run(script, flags)
    assert (done.returncode, done.stdout, done.stderr.count("\n")) == (2, "", 1)
    assert done.stderr.startswith(f"{script}.py: error: ")
    assert message.format(own=own) in done.stderr
    assert files(tmp_path) == []


@scripts_by_name
def test_another_run_s_folder_is_refused_before_anything_is_written(run, tmp_path, script):
    """Of the same script or of another: M1+M2 finds out before it trains M1."""
    (tmp_path / "old").mkdir()
    (tmp_path / "old" / "settings.json").write_text('{"paper": "m2", "labels": 3}')
    before = times(tmp_path)
    done = run(script, "--out old")
    assert (done.returncode, done.stdout) == (2, "")
    assert "--out old holds another run; add --resume or --overwrite, or choose another folder" in done.stderr
    if script != "ss_vae_m1_m2":  # whose settings are known only once there are features
        assert "the run in old has other settings" in run(script, "--out old --resume").stderr
    assert times(tmp_path) == before


@scripts_by_name
def test_help_explains_every_flag_with_its_default_and_cites_the_paper(scripts, own, script):
    done = call(scripts[script], "--help", own)
    assert (done.returncode, done.stderr) == (0, "")
    text = " ".join(done.stdout.split())
    assert {"--data-root", "--labels", "--epochs", "--seed", "--device", "--out", "--resume"} <= set(text.split())
    for action in scripts[script].parser()._actions:
        if action.help in (None, argparse.SUPPRESS) or action.dest == "help":
            assert action.dest == "help"
        elif isinstance(action.default, bool) or action.default is None:
            unsaid = action.nargs != 0 and action.default is None
            assert not unsaid or re.search("without it|default|both weights as|weights? (1|as)|adversary", action.help)
        else:
            assert f"(default: {action.default})" in text
    for form in FORMS.values():
        row = PAPERS[form.paper]
        if form.script == script and form.paper not in ("m2-adversarial", "m2", "adgm"):
            cited = row.arxiv or row.title.split(" (")[0]
            assert "".join(cited.split()) in "".join(text.split())
    assert not re.search(r"default: (None|False|==SUPPRESS==)", text)
    assert "about a minute on two cores" in text


@pytest.mark.parametrize("data", ["real", "points"])
@pytest.mark.parametrize("script", [name for name in SCRIPTS if name != "untapped"])
def test_real_values_of_the_user_s_own(run, own, tmp_path, script, data):
    """Vectors and points: as many labels as asked for, the figures that go with the shape, and a normal likelihood."""
    flags = f"--data {own}/{data}.npz --out run --epochs 1 " + {
        "semi_unsupervised": "--hide 0 --labels 8", "ss_vae_m1_m2": "--m1 m1 --labels 12", "ss_cagem": "--labels 12 "
        "--z2-dim 2",
    }.get(script, "--labels 12")  # fmt: skip
    if script == "ss_vae_m1_m2":
        assert run("ss_vae_m1", f"--data {own}/{data}.npz --out m1 --epochs 5 --labels 12").returncode == 0
    done = run(script, flags)
    assert (done.returncode, complaints(done)) == (0, [])
    assert "; normal likelihood; 1 epochs" in done.stdout
    form = next(form for name, form in FORMS.items() if form.script == script and name != "cagem")
    assert {path.stem for path in (tmp_path / "run" / "figures").iterdir()} == form.figures - {"mesh"}
    assert summary(tmp_path / "run")["labels"] == {"semi_unsupervised": 8}.get(script, 12)


@pytest.mark.parametrize(
    ("script", "flags", "said"),
    [
        ("ss_adgm", "--data {own}/few.npz", "9 labels (its own)"),
        ("semi_unsupervised", "--data {own}/few.npz --hide 1", "6 labels (its own, none of class 1)"),
        ("semi_unsupervised", "--data {own}/few.npz --labels 0", "rows, 0 labels; D = 5, K = 8 (3 classes)"),
        ("semi_unsupervised", "--hide", "100 labels (10 of each class); D = 64, K = 15 (10 classes)"),
        ("semi_unsupervised", "--hide 4 0 4", "96 labels (12 of each class, none of class 0 4)"),
        ("semi_unsupervised", "--likelihood bernoulli", "bernoulli likelihood, binarised"),
        ("semi_unsupervised", "--likelihood auto", "bernoulli likelihood, binarised"),
        ("semi_unsupervised", "--data {own}/tiny.npz --hide 0 --labels 1 --extra-classes 2", "1 labels (1 of each"),
        ("ss_cagem", "--data {own}/tiny.npz --labels 2", "2 labels (1 of each class)"),
        ("ss_latent_classifier", "--data {own}/unit.npz --labels 36 --likelihood auto", "36 labels (12 of each class)"),
        ("untapped", "--data {own}/unit.npz --hide 1 1", "24 labels (12 of each class, none of class 1)"),
        ("untapped", "--data {own}/few.npz --hide 1 --gradient score", "6 labels (its own, none of class 1)"),
        ("untapped", "--labels 50", "50 labels (10 of each class, none of class 5 6 7 8 9)"),
        ("ss_vae_m1", "--classifier label-spreading", "100 labels (10 of each class)"),
        ("ss_vae_m1", "--data {own}/tiny.npz --labels 2 --classifier logistic", "2 labels (1 of each class)"),
        ("ss_adgm", "--averaged-classifier --num-samples 3 --beta 0.1", "bernoulli likelihood, binarised"),
    ],
)
def test_other_data_and_labels(run, request, script, flags, said):
    if "--data" not in flags:
        request.getfixturevalue("undrawn")
    done = run(script, f"{flags} --epochs 1")
    assert (done.returncode, complaints(done)) == (0, [])
    assert said in done.stdout.splitlines()[0]


def test_m1_m2_trains_m1_where_there_is_none_and_goes_on_with_one_that_was_stopped(run, undrawn, own, tmp_path):
    """With the settings of ss_vae_m1.py, and the labels that were asked for: its own hundred may be too many."""
    flags = f"--data {own}/real.npz --labels 12 --m1 m1 --quiet"
    assert run("ss_vae_m1", f"{flags.replace('--m1', '--out')} --epochs 1").returncode == 0
    (tmp_path / "m1" / "summary.json").unlink()
    done = run("ss_vae_m1_m2", f"{flags} --out m2")
    assert done.returncode == 2
    assert "--resume: the run in m1 has other settings: batch_size was 60 and is now 100" in done.stderr
    done = run("ss_vae_m1_m2", f"{flags.replace('--m1 m1', '--m1 new')} --out m2")
    assert (done.returncode, complaints(done)) == (0, [])
    assert (summary(tmp_path / "new")["epochs"], summary(tmp_path / "new")["labels"]) == (100, 12)
    (tmp_path / "new" / "summary.json").unlink()
    before = (tmp_path / "new" / "checkpoints" / "best.ckpt").read_bytes()
    assert run("ss_vae_m1_m2", f"{flags.replace('--m1 m1', '--m1 new')} --out m2 --overwrite").returncode == 0
    assert (tmp_path / "new" / "summary.json").exists()
    assert (tmp_path / "new" / "checkpoints" / "best.ckpt").read_bytes() == before


def test_m1_m2_refuses_an_m1_that_is_none(run, finished, own, tmp_path):
    home = finished("m1")[0].parent
    finished("m2")
    (tmp_path / "broken").mkdir()
    for name, text in (("settings.json", "["), ("summary.json", "{{}}")):
        (tmp_path / "broken" / name).write_text(text)
    before = times(tmp_path)
    for m1, flags, message in (
        (home / "ss_vae_m2", "", f"ss_vae_m2 holds a run of m2 on {own}/little.npz, not of m1"),
        (home / "ss_vae_m1", f"--data {own}/unit.npz --labels 12", f"little.npz, not of m1 on {own}/unit.npz; name"),
        ("broken", "", "broken/settings.json is not the settings file of a run"),
    ):
        done = run("ss_vae_m1_m2", f"--m1 {m1} {flags}")
        assert (done.returncode, done.stdout, done.stderr.count("\n")) == (2, "", 1)
        assert message in done.stderr
    assert times(tmp_path) == before
