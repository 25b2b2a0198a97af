"""The MNIST experiments of Jurasiński's thesis (2019): Table 1 and what goes with it. The toy ones are in `toys.py`."""

from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import ss_vae_m2
import torch
from matplotlib.figure import Figure
from semipyro.data import load
from semipyro.files import check_archive
from semipyro.inference import Objective, accuracy
from semipyro.inference.training.checkpoint import save_whole
from semipyro.papers import PAPERS
from semipyro.plots.common import new_figure
from shared.fitting import read_fitting
from shared.run_folder import read_output
from shared.task import make_task, read_data
from shared.training import begin_run, train
from torch import Tensor

from .base import Claim, Experiment, Metrics, Number, Record, Settings, budgeted, parsed, run_script, script

PAPER = "Jurasiński (2019)"
EPOCHS = {"desk": 40, "paper": 500}
SEEDS = {"smoke": 1, "desk": 3, "paper": 5}
SMALL = {"hidden": [16], "z_dim": 4, "labels": 20}
WEIGHTS = (0, 0.001, 0.1, 0.5, 1, 10, 100, 10_000)
SIGMA = 0.5  # the thesis does not give it; chosen for its own model, on validation images
# what Appendix B has: a Gaussian on grey pixels, 784-500, z of 50, batches of 100 + 100
SHARED = {"labels": 100, "likelihood": "normal", "scale": SIGMA, "learning_rate": 1e-3}


def m2(budget: str, alpha: float, **more: Any) -> Settings:
    """M2 with the thesis' weights, which are of means over a batch: 1 and α."""
    own = {"binarize": False, "labelled_weight": 1.0, "classification_weight": float(alpha)}
    return script("ss_vae_m2", **budgeted(budget, EPOCHS, SMALL, **SHARED, **own, **more))


def latent(budget: str, form: str, lam: float) -> Settings:
    """The thesis' model, or its simplified form."""
    return script("ss_latent_classifier", **budgeted(budget, EPOCHS, SMALL, **SHARED, form=form, **{"lambda": lam}))


# Table 1, and the probe


def table1(budget: str) -> dict[str, Settings]:
    """Three models over α or λ."""
    alphas, lambdas = {"smoke": ((1,), (0.5,)), "desk": ((0, 1, 10_000), (0.1, 0.5)), "paper": (WEIGHTS, WEIGHTS[1:])}[
        budget
    ]
    return {
        **{f"m2-alpha-{alpha:g}": m2(budget, alpha) for alpha in alphas},
        **{f"ours-lambda-{lam:g}": latent(budget, "ours", lam) for lam in lambdas},
        **{f"simplified-lambda-{lam:g}": latent(budget, "simplified", lam) for lam in lambdas},
    }


def measure(settings: Settings, seed: int, folder: Path) -> Metrics:
    """Runs the script, and probes the z of M2."""
    probed = settings["script"] == "ss_vae_m2"
    return run_script(settings, seed, folder, after=partial(probe, settings, seed) if probed else lambda *_: {})


@torch.no_grad()
def probe(settings: Settings, seed: int, objective: Objective, folder: Path) -> Metrics:
    """§3.3: how well a network of one hidden layer reads the class from z, encoded under every label in turn.

    It learns from a fifth of the training rows: on posterior means, as `encode` gives them, and on one draw.
    """
    from sklearn.neural_network import MLPClassifier

    data = load(settings["flags"]["data"])
    torch.manual_seed(seed)

    def posteriors(x: Tensor) -> list[Any]:
        return [objective.guide.q_z(x, label.expand(len(x), -1)) for label in torch.eye(data.num_classes)]

    some = len(data.train.x) // 5
    parts = posteriors(data.train.x[:some]), posteriors(data.test.x)
    y, y_test = (labels.repeat(data.num_classes).numpy() for labels in (data.train.y[:some], data.test.y))
    found = {}
    for name, value in (("means", lambda q: q.mean), ("draws", lambda q: q.sample())):
        z, z_test = (torch.cat([value(q_z) for q_z in part]).numpy() for part in parts)
        reader = MLPClassifier((500,), early_stopping=True, n_iter_no_change=5, random_state=seed)
        found[f"probe_{name}"] = float(reader.fit(z, y).score(z_test, y_test))
    return found


PUBLISHED = {  # α or λ: M2, ours, simplified; accuracy in %
    0: ("88.6 ± 5.0", "", ""),
    0.001: ("90.3 ± 3.5", "72.2 ± 3.7", "82.1 ± 1.9"),
    0.1: ("91.4 ± 2.2", "91.7 ± 3.6", "80.4 ± 0.7"),
    0.5: ("91.7 ± 2.5", "92.3 ± 2.8", "79.5 ± 1.1"),
    1: ("92.0 ± 2.6", "88.2 ± 3.6", "78.7 ± 0.7"),
    10: ("92.6 ± 2.5", "78.1 ± 1.3", "76.7 ± 0.3"),
    100: ("93.3 ± 2.0", "80.2 ± 0.9", "75.9 ± 0.8"),
    10_000: ("93.7 ± 2.5", "70.9 ± 0.4", "72.4 ± 0.9"),
}
ROWS = [("M2, α", "m2-alpha", 0), ("ours, λ", "ours-lambda", 1), ("simplified, λ", "simplified-lambda", 2)]


def draw_table1(records: list[Record]) -> dict[str, Figure]:
    """Accuracy over the weight, beside the thesis' values."""
    figure = new_figure(6.4, 3.8)
    axes = figure.add_subplot()
    place = {weight: at for at, weight in enumerate(PUBLISHED)}
    for column, (label, cell, index) in enumerate(ROWS):
        published = [(place[weight], float(row[index].split()[0])) for weight, row in PUBLISHED.items() if row[index]]
        axes.plot(*zip(*published, strict=True), "o--", color=f"C{column}", alpha=0.4, markersize=4)
        measured = [
            (place[weight], 100 * record["metrics"]["test_accuracy"])
            for weight in PUBLISHED
            for record in records
            if record["cell"] == f"{cell}-{weight:g}"
        ]
        axes.plot(*(zip(*measured, strict=True) if measured else ((), ())), "x", color=f"C{column}", label=label[:-3])
    axes.set(
        xticks=list(place.values()),
        xticklabels=[f"{weight:g}" for weight in place],
        xlabel="α or λ",
        ylabel="test accuracy, %",
        title="crosses: ours, a seed each; dashed: published",
    )
    axes.title.set_fontsize("medium")
    figure.legend(loc="outside lower center", ncols=len(ROWS), frameon=False)  # the lines leave no room inside
    return {"accuracy": figure}


TABLE1 = Experiment(
    "thesis-table1",
    PAPER,
    "MNIST with 100 labels: M2, the thesis' model and its simplified form, over α or λ",
    table1,
    measure,
    SEEDS,
    (
        Number("a classifier of the labels alone", "m2-alpha-1", "74.7 ± 1.2", "baseline_accuracy"),
        *(
            Number(f"{label} = {weight:g}", f"{cell}-{weight:g}", row[index])
            for label, cell, index in ROWS
            for weight, row in PUBLISHED.items()
            if row[index]
        ),
    ),
    draw_table1,
    note=f"The thesis does not give σ; {SIGMA} was chosen on validation images for its own model and serves all three. "
    "As in the thesis, the epoch is chosen by validation accuracy (10,000 labels).",
    claims=(
        Claim("M2 beats the labels alone", ("m2-alpha-1", "test_accuracy"), ("m2-alpha-1", "baseline_accuracy")),
        Claim(
            "M2 gains by its discriminative term, α = 10000 over 0",
            ("m2-alpha-10000", "test_accuracy"),
            ("m2-alpha-0", "test_accuracy"),
        ),
        Claim(
            "the thesis' model beats the labels alone, λ = 0.5",
            ("ours-lambda-0.5", "test_accuracy"),
            ("ours-lambda-0.5", "baseline_accuracy"),
        ),
        Claim(
            "the simplified model beats the labels alone, λ = 0.1",
            ("simplified-lambda-0.1", "test_accuracy"),
            ("simplified-lambda-0.1", "baseline_accuracy"),
        ),
        Claim(
            "the simplified model is below the thesis' model, λ = 0.5",
            ("ours-lambda-0.5", "test_accuracy"),
            ("simplified-lambda-0.5", "test_accuracy"),
        ),
    ),
)


# Pretraining: § 3.2, § 5.2 and Fig. 5


def pretrained(budget: str) -> dict[str, Settings]:
    """Each model from scratch and from a VAE that was trained on all rows without labels."""
    own = {name: value for name, value in SHARED.items() if name != "labels"}
    vae = script("ss_vae_m1", **budgeted(budget, EPOCHS, SMALL, **own, binarize=False))
    kinds = {
        "m2-alpha-0.1": m2(budget, 0.1),
        "m2-alpha-10000": m2(budget, 10_000),
        "ours": latent(budget, "ours", 0.5),
        "simplified": latent(budget, "simplified", 0.001),
    }
    return kinds | {f"{name}-pretrained": settings | {"first": vae} for name, settings in kinds.items()}


def measure_pretrained(settings: Settings, seed: int, folder: Path) -> Metrics:
    """Runs the script, and measures how much the decoder depends on y."""
    return run_script(settings, seed, folder, after=partial(use_of_y, settings), figures=True)


@torch.no_grad()
def use_of_y(settings: Settings, objective: Objective, folder: Path) -> Metrics:
    """How much the reconstructions of one z differ between the classes: their variance, summed over the pixels."""
    if objective.model.p_x.mlp.first.in_dims == (objective.model.z_dim,):
        return {}  # the simplified model
    x = load(settings["flags"]["data"]).test.x[:1000]
    z = objective.guide.encode(x)
    classes = torch.eye(objective.model.y_dim)
    under = torch.stack([objective.model.p_x(y.expand(len(x), -1), z).mean for y in classes])
    return {"use_of_y": float(under.var(0, correction=0).sum(-1).mean())}


KINDS = {
    "m2-alpha-0.1": "M2, α = 0.1",
    "m2-alpha-10000": "M2, α = 10000",
    "ours": "ours, λ = 0.5",
    "simplified": "simplified, λ = 0.001",
}
PRETRAINED = Experiment(
    "thesis-pretrained",
    PAPER,
    "MNIST with 100 labels, models that start from a VAE's weights (§3.2, §5.2)",
    pretrained,
    measure_pretrained,
    SEEDS,
    (
        Number("a classifier of the labels alone", "m2-alpha-0.1", "74.7 ± 1.2", "baseline_accuracy"),
        *(
            Number(f"{label}, from a VAE", f"{cell}-pretrained", published)
            for (cell, label), published in zip(
                KINDS.items(), ("below the baseline", "not worse", "below the baseline", "81.6 ± 1.2"), strict=True
            )
        ),
        *(Number(f"{label}, from scratch", cell) for cell, label in KINDS.items()),
        *(
            Number(f"{KINDS[cell]}{how}: variance of a reconstruction over y", cell + end, "", "use_of_y", "number")
            for cell in ("m2-alpha-0.1", "ours")
            for how, end in ((", from a VAE", "-pretrained"), (", from scratch", ""))
        ),
    ),
    pictures=("analogies",),
    claims=(
        Claim(
            "M2 that starts from a VAE is below the labels alone, α = 0.1",
            ("m2-alpha-0.1-pretrained", "baseline_accuracy"),
            ("m2-alpha-0.1-pretrained", "test_accuracy"),
        ),
        Claim(
            "reconstructions of M2 from a VAE depend less on y than from scratch (variance)",
            ("m2-alpha-0.1", "use_of_y"),
            ("m2-alpha-0.1-pretrained", "use_of_y"),
            "",
        ),
        Claim(
            "M2 that starts from a VAE beats the labels alone with a large α, 10000",
            ("m2-alpha-10000-pretrained", "test_accuracy"),
            ("m2-alpha-10000-pretrained", "baseline_accuracy"),
        ),
        Claim(
            "the thesis' model from a VAE is below the labels alone",
            ("ours-pretrained", "baseline_accuracy"),
            ("ours-pretrained", "test_accuracy"),
        ),
        Claim(
            "the simplified model from a VAE beats the labels alone",
            ("simplified-pretrained", "test_accuracy"),
            ("simplified-pretrained", "baseline_accuracy"),
        ),
    ),
    note="The VAE has the same networks; the weights of y, which it does not read, start at zero.",
)

FIG5 = replace(
    PRETRAINED,
    name="thesis-fig5",
    of="thesis-pretrained",
    about="analogies of M2 after it started from a VAE: the reconstruction does not depend on y",
    settings=lambda budget: {name: found for name, found in pretrained(budget).items() if "m2-alpha-0.1" in name},
    seeds=dict.fromkeys(SEEDS, 1),
    numbers=tuple(number for number in PRETRAINED.numbers if "α = 0.1" in number.label),
    claims=(),
)


# Batches (Fig. 8), the choice of the epoch (supplement, Fig. 12), the adversary (Appendix E)


def fig8(budget: str) -> dict[str, Settings]:
    """Batches of 100 labelled and 100 unlabelled rows, and of 1 and 499, with the same weights of means."""
    small = {"labelled_batch_size": 1, "batch_size": 49} if budget == "smoke" else {}
    few = {"labelled_batch_size": 1, "batch_size": 499} | small
    return {"100-100": m2(budget, 1), "1-499": m2(budget, 1, **few)}


def draw_fig8(records: list[Record]) -> dict[str, Figure]:
    """Validation accuracy by epoch, a line for each seed."""
    figure = new_figure(5.6, 3.6)
    axes = figure.add_subplot()
    for name, colour in (("100-100", "tab:red"), ("1-499", "tab:blue")):
        for record in (record for record in records if record["cell"] == name):
            curve = record["metrics"]["curves"]["validation_accuracy"]
            label = f"{name.replace('-', ' labelled and ')} unlabelled" if record["seed"] == 0 else None
            marker = "." if len(curve) < 3 else ""
            axes.plot(range(1, len(curve) + 1), curve, color=colour, label=label, linewidth=1, marker=marker)
    axes.set(xlabel="epoch", ylabel="validation accuracy")
    axes.legend(frameon=False)
    return {"accuracy": figure}


def selection(budget: str) -> dict[str, Settings]:
    """M2 over α."""
    alphas = {"smoke": (1,), "desk": (0.1, 10_000), "paper": WEIGHTS}[budget]
    return {f"alpha-{alpha:g}": m2(budget, alpha) for alpha in alphas}


def measure_selection(settings: Settings, seed: int, folder: Path) -> Metrics:
    """Trains once, and measures two epochs: the best on validation labels, and the one with the lowest loss."""
    args = parsed(settings, seed, folder)
    fitting, output = read_fitting(args), read_output(args)
    task = make_task(read_data(args), likelihood=args.likelihood)
    recipe = ss_vae_m2.choose(args, task)
    torch.manual_seed(seed)
    objective = PAPERS[recipe.paper].build(**recipe.build)
    with begin_run(objective, recipe, task, fitting, output):
        lowest = folder / "lowest.pt"

        def keep(row: dict[str, float]) -> None:
            if not lowest.exists() or row["loss"] < read_whole(lowest)["loss"]:
                found = {"loss": row["loss"], "weights": objective.state_dict()}
                save_whole(found, lowest)

        history = train(objective, task, fitting, output, report=keep)
        test = task.dataset.test
        found = {"test_accuracy": accuracy(objective.guide.classify, test.x, test.y)}
        objective.load_state_dict(read_whole(lowest)["weights"])
        found["test_accuracy_loss"] = accuracy(objective.guide.classify, test.x, test.y)
        found["best_epoch"] = max(history, key=lambda row: row["validation_accuracy"])["epoch"]
        found["lowest_epoch"] = min(history, key=lambda row: row["loss"])["epoch"]
        return found | {"epochs": len(history), "seconds": sum(row["seconds"] for row in history)}


def read_whole(path: Path) -> dict[str, Any]:
    """What torch.save wrote; a ValueError where the file is damaged."""
    check_archive(path)
    return dict(torch.load(path, weights_only=True))


def draw_selection(records: list[Record]) -> dict[str, Figure]:
    """Fig. 12: accuracy by α for both choices."""
    figure = new_figure(5.2, 3.4)
    axes = figure.add_subplot()
    names = list(dict.fromkeys(record["cell"] for record in records))
    for shift, (metric, label) in enumerate(
        (("test_accuracy", "by validation labels"), ("test_accuracy_loss", "by the loss"))
    ):
        points = [
            (at + 0.1 * shift, 100 * record["metrics"][metric])
            for at, name in enumerate(names)
            for record in records
            if record["cell"] == name
        ]
        axes.plot(*zip(*points, strict=True), "o", color=f"C{shift}", label=label, markersize=5)
    axes.set(
        xticks=range(len(names)),
        xticklabels=[name.replace("alpha-", "α = ") for name in names],
        ylabel="test accuracy, %",
    )
    axes.legend(frameon=False)
    return {"selection": figure}


def adversarial(budget: str) -> dict[str, Settings]:
    """M2 at α = 1 with and without the adversary, which has a weight of 1."""
    return {"m2": m2(budget, 1), "adversarial": m2(budget, 1, adversary=1.0)}


EXPERIMENTS = [
    TABLE1,
    PRETRAINED,
    FIG5,
    replace(
        TABLE1,
        name="thesis-probe",
        of="thesis-table1",
        figures=lambda records: {},
        about="the class read from M2's z, over α (§3.3): z keeps the class",
        settings=lambda budget: {name: found for name, found in table1(budget).items() if name.startswith("m2-")},
        numbers=tuple(
            Number(
                f"M2, α = {alpha:g}: a classifier of z ({what})",
                f"m2-alpha-{alpha:g}",
                "over 85",
                f"probe_{what}",
            )
            for alpha in WEIGHTS
            for what in ("means", "draws")
        ),
        note="The thesis does not say which classifier reads z, nor whether of means or of draws. Here it is a network "
        "with one hidden layer of 500, which learns from z of 10,000 training rows under each of the ten labels and is "
        "tested on all test rows.",
        claims=tuple(
            Claim(
                f"a classifier reads the class from M2's z with over 85 %, α = {alpha:g}",
                (f"m2-alpha-{alpha:g}", "probe_means"),
                0.85,
            )
            for alpha in (0, 1, 10_000)
        ),
    ),
    Experiment(
        "thesis-fig8",
        PAPER,
        "M2 with batches of 100 + 100 and of 1 + 499 rows (Appendix D)",
        fig8,
        run_script,
        SEEDS,
        (Number("batches of 100 labelled and 100 unlabelled rows", "100-100"), Number("batches of 1 and 499", "1-499")),
        draw_fig8,
        note="α = 1 on means over each batch, as the thesis has it; an epoch is a pass over the unlabelled "
        "rows, so that the second has a fifth of the steps.",
    ),
    Experiment(
        "thesis-selection",
        PAPER,
        "the epoch chosen by validation labels or by the lowest loss (supplement, Fig. 12)",
        selection,
        measure_selection,
        SEEDS,
        tuple(
            Number(f"M2, α = {alpha:g}, {how}", f"alpha-{alpha:g}", published, metric)
            for alpha in WEIGHTS
            for how, metric, published in (
                ("by validation labels", "test_accuracy", ""),
                ("by the lowest training loss", "test_accuracy_loss", "slightly lower"),
            )
        ),
        draw_selection,
        claims=tuple(
            Claim(
                f"validation labels choose a better epoch than the loss does, α = {alpha:g}",
                (f"alpha-{alpha:g}", "test_accuracy"),
                (f"alpha-{alpha:g}", "test_accuracy_loss"),
            )
            for alpha in (0.1, 10_000)
        ),
    ),
    Experiment(
        "thesis-adversarial",
        PAPER,
        "M2 with an adversary that reads the class from z (Appendix E)",
        adversarial,
        measure,
        SEEDS,
        (
            Number("M2", "m2"),
            Number("M2 with the adversary", "adversarial", "no difference"),
            Number("M2: a classifier of z (means)", "m2", "", "probe_means"),
            Number("M2 with the adversary: a classifier of z (means)", "adversarial", "", "probe_means"),
        ),
    ),
]
