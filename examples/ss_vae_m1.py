"""M1: a variational autoencoder learns features from all rows, and a classifier learns from the features of a hundred.

"Semi-supervised learning with deep generative models" (Kingma et al., 2014), arXiv:1406.5298, eq. (1). Without flags:
8x8 digits, 100 labels, about a minute on two cores. The classifier is scikit-learn's, and the baseline the same one on
the rows themselves. `ss_vae_m1_m2.py` goes on from a run of this script. The paper's task is
`--data mnist --labels 100`.
"""

import argparse
from collections.abc import Sequence
from typing import Any

import torch
from matplotlib.figure import Figure
from semipyro import plots
from semipyro.inference import Objective, active_units
from semipyro.papers import PAPERS
from shared.command import Parser, command
from shared.figures import latent_figures, save_figures, unit_figure
from shared.fitting import Fitting, read_fitting
from shared.flags import add_network_flags, make_parser
from shared.recipe import Recipe, network_settings
from shared.report import print_files, print_table, tell_bound
from shared.run_folder import Output, read_output
from shared.summary import measure_bound, write_summary
from shared.task import Task, make_task, read_data
from shared.training import begin_run, train
from torch import Tensor

CLASSIFIERS = ("svm", "logistic", "knn", "label-spreading")


def parser() -> Parser:
    """All flags."""
    flags = make_parser("ss_vae_m1", __doc__)
    add_network_flags(flags, classes=False)
    add = flags.add_argument_group("classifier").add_argument
    add("--classifier", choices=CLASSIFIERS, default="svm", help="of the features, with scikit-learn's own settings; "
        "label-spreading reads the unlabelled rows too")  # fmt: skip
    flags.set_defaults(include_labelled=True)
    return flags


def run(args: argparse.Namespace) -> None:
    """Reads the flags, loads the data, and takes the steps."""
    fitting, output = read_fitting(args), read_output(args)
    task = make_task(read_data(args), likelihood=args.likelihood)
    learn(task, choose(args, task), fitting, output, args.classifier)


def choose(args: argparse.Namespace, task: Task) -> Recipe:
    """M1, and the keywords of its `build`."""
    return Recipe("m1", "M1", network_settings(args, task))


def learn(task: Task, recipe: Recipe, fitting: Fitting, output: Output, classifier: str) -> None:
    """Takes the steps from the model to the figures."""
    train_x, test_x = task.dataset.train.x, task.dataset.test.x

    # Model p(x, z), guide q(z | x), and the bound that both are trained on.
    torch.manual_seed(task.seed)
    objective = PAPERS[recipe.paper].build(**recipe.build)
    with begin_run(objective, recipe, task, fitting, output):
        # Fit. No label is read: the bound on the validation rows chooses the epoch.
        history = train(objective, task, fitting, output, monitor="unlabelled")

        # Measure: the classifier learns from features, which are posterior means, and its baseline from the rows.
        torch.manual_seed(task.seed)
        with torch.no_grad():
            features, test_features = (objective.guide.encode(x) for x in (train_x, test_x))
        outside = bool((train_x < 0).any() or (train_x > 1).any())
        measured = {
            "classifier": classifier,
            "test_accuracy": classifier_accuracy(classifier, task, features, test_features, standardised=False),
            "baseline_accuracy": classifier_accuracy(classifier, task, train_x, test_x, standardised=outside),
            "bound": measure_bound(objective, task),
            "active_units": active_units(objective.guide, test_x),
        }
        summary = write_summary(recipe, task, fitting, output, history, measured)

        # Tell, and draw.
        print_table(output, "test accuracy", {
            f"M1, {classifier} on the features of {task.num_labels} labelled rows": summary["test_accuracy"],
            f"the same classifier on the {task.num_labels} rows themselves": summary["baseline_accuracy"],
        })  # fmt: skip
        tell_bound(output, summary)
        if output.figures:
            save_figures(output.folder, figures(objective, recipe, task, history))
        print_files(output, recipe.paper)


def classifier_accuracy(name: str, task: Task, train_x: Tensor, test_x: Tensor, *, standardised: bool) -> float:
    """Trains scikit-learn's classifier on the rows with a label (or on all), and measures it on the test rows."""
    rows = torch.ones_like(task.y, dtype=torch.bool) if name == "label-spreading" else task.y >= 0
    known = task.dataset.test.y >= 0
    classifier = make_classifier(name, standardised=standardised)
    classifier.fit(train_x[rows].numpy(), task.y[rows].numpy())
    return float(classifier.score(test_x[known].numpy(), task.dataset.test.y[known].numpy()))


def make_classifier(name: str, *, standardised: bool) -> Any:
    """The classifier; behind a standardisation for the columns of a table, which differ in scale.

    Features and pixels are read as they are: a scale of 1 would blow up the units and pixels that hardly vary.
    """
    from sklearn.linear_model import LogisticRegression
    from sklearn.neighbors import KNeighborsClassifier
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler
    from sklearn.semi_supervised import LabelSpreading
    from sklearn.svm import SVC

    makers = {
        "svm": SVC,
        "logistic": lambda: LogisticRegression(max_iter=1000),
        "knn": KNeighborsClassifier,
        "label-spreading": lambda: LabelSpreading(kernel="knn"),
    }
    return make_pipeline(StandardScaler(), makers[name]()) if standardised else makers[name]()


def figures(objective: Objective, recipe: Recipe, task: Task, history: list[dict[str, float]]) -> dict[str, Figure]:
    """Training, latent space, KL per unit, and reconstructions."""
    torch.manual_seed(task.seed)
    return {
        "training_curves": plots.training_curves(history),
        **latent_figures(objective, task),
        **unit_figure(objective, recipe, task),
        "reconstructions": plots.reconstructions(objective.model, objective.guide, task.test_x(1000)[:30], task.shape),
    }


def main(arguments: Sequence[str] | None = None) -> None:
    """The command line."""
    command(parser(), run, arguments)


if __name__ == "__main__":
    main()
