"""What the examples share: flags, data, the baseline, and what a run leaves in its folder."""

import argparse
import json
import platform
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any, NoReturn

import semipyro
import torch
from semipyro import plots
from semipyro.data import Batches, Dataset, batches, binarize, load, mask_labels
from semipyro.files import write_whole
from semipyro.inference import Objective, accuracy, evaluate, fit
from torch import Tensor, nn

EPOCHS = {"digits": 200, "moons": 60, "circles": 60, "mnist": 60, "fashion-mnist": 60, "omniglot": 60}
RUN_FLAGS = ("out", "resume", "overwrite", "quiet")  # where a run goes and how it looks, not what it computes


class Parser(argparse.ArgumentParser):
    """Ends wrong use with exit status 2 and one line."""

    def error(self, message: str) -> NoReturn:
        """One line on standard error."""
        self.exit(2, f"{self.prog}: error: {' '.join(message.split())}\n")


def make_parser(name: str, description: str) -> Parser:
    """A parser with the flags that every example has."""
    parser = Parser(prog=f"{name}.py", description=description, formatter_class=argparse.ArgumentDefaultsHelpFormatter)
    add = parser.add_argument_group("data and training").add_argument
    add("--data", default="digits", help="digits, moons, circles, mnist, fashion-mnist, omniglot, or a .npz with x, y")
    add("--data-root", help="folder of the data sets; without it SEMIPYRO_DATA, else the user's cache folder")
    add("--labels", type=int, default=100, help="how many training rows keep their label, the same number per class")
    add("--epochs", type=int, help="passes over the unlabelled rows; without it 200 for digits and .npz, else 60")
    add("--batch-size", type=int, default=100, help="unlabelled rows in a batch")
    add(
        "--labelled-batch-size",
        type=int,
        default=100,
        help="labelled rows in a batch; they repeat where there are fewer",
    )
    add("--learning-rate", type=float, default=3e-3, help="of Adam")
    add(
        "--weight-decay",
        type=float,
        default=0.0,
        help="weight of half the squared entries of all matrices, in the loss",
    )
    add("--kl-warmup", type=int, default=0, help="epochs over which the weight of the KL terms rises to 1")
    add("--gradient-clip", type=float, help="largest norm of the gradient")
    add("--binarize", action=argparse.BooleanOptionalAction, help="draw pixels as 0 or 1, anew in each batch; without "
        "it, drawn where the likelihood is Bernoulli")  # fmt: skip
    add("--seed", type=int, default=0, help="of the labels, the networks, the batches and the noise")
    add("--device", default="auto", help="auto, cpu, cuda or mps")
    add("--precision", default="32", help="32, or bf16 inside the networks")
    add("--out", type=Path, default=Path("runs") / name, help="folder for settings, numbers, checkpoints and figures")
    add("--resume", action="store_true", help="go on with the run in --out, to the numbers of a run without a break")
    add("--overwrite", action="store_true", help="delete the run in --out first")
    add("--quiet", action="store_true", help="no progress bar, no table")
    return parser


def add_network_flags(parser: Parser) -> None:
    """The flags of the models' and guides' `build`."""
    add = parser.add_argument_group("networks").add_argument
    add("--z-dim", type=int, default=50, help="width of the latent z")
    add("--hidden", type=int, nargs="*", default=[500], help="widths of the hidden layers")
    add("--activation", default="softplus", help="elu, gelu, relu, silu, softplus or tanh")
    add("--likelihood", default="auto", help="bernoulli, normal, or auto: bernoulli for data in [0, 1], else normal")
    add("--scale", type=float, help="fixed standard deviation of a normal likelihood; without it, learned")
    add("--num-samples", type=int, default=1, help="draws of z that each bound averages over")


def network_settings(args: argparse.Namespace, dataset: Dataset) -> dict[str, Any]:
    """Keywords of a paper's `build`, from the flags."""
    names = ("z_dim", "hidden", "activation", "num_samples")
    settings = {name: getattr(args, name) for name in names} | {"likelihood": likelihood(args, dataset)}
    if args.scale is not None:
        settings["scale"] = args.scale
    return settings


def likelihood(args: argparse.Namespace, dataset: Dataset) -> str:
    """The flag's, or where it says auto what the data ask for."""
    within = dataset.train.x.min() >= 0 and dataset.train.x.max() <= 1
    return args.likelihood if args.likelihood != "auto" else ("bernoulli" if within else "normal")


def command(parser: Parser, run: Callable[[argparse.Namespace], None], arguments: Sequence[str] | None = None) -> None:
    """Runs an example: wrong use of any kind ends with exit status 2 and one line, a loss that breaks with 1."""
    args = parser.parse_args(arguments)
    try:
        run(args)
    except ValueError as error:
        parser.error(str(error))
    except FloatingPointError as error:
        parser.exit(1, f"{parser.prog}: {error}\n")
    except KeyboardInterrupt:
        parser.exit(130, f"\n{parser.prog}: stopped; --resume goes on from the last whole epoch\n")


@dataclass(frozen=True)
class Task:
    """A data set with its labels masked, ready to be trained on."""

    dataset: Dataset
    y: Tensor
    batches: Batches
    binarized: bool

    @property
    def num_classes(self) -> int:
        """K."""
        return self.dataset.num_classes

    @property
    def x_dim(self) -> int:
        """D."""
        return self.dataset.train.x.shape[1]

    def bound_x(self, x: Tensor) -> Tensor | None:
        """The rows on which bounds are measured where the images were binarised: x binarised once; else None."""
        return binarize(x, seed=0) if self.binarized else None


def make_task(args: argparse.Namespace) -> Task:
    """Loads the data, hides all but `--labels` labels, and makes the batches."""
    check_flags(args)
    dataset = load(args.data, args.data_root)
    y = dataset.train.y if args.data.endswith(".npz") and (dataset.train.y < 0).any() else keep_labels(args, dataset)
    bernoulli = likelihood(args, dataset) == "bernoulli"
    binarized = bernoulli if args.binarize is None else args.binarize
    rows = batches(
        dataset.train.x, y, labelled_batch_size=args.labelled_batch_size, unlabelled_batch_size=args.batch_size,
        binarize=binarized, seed=args.seed, num_classes=dataset.num_classes,
    )  # fmt: skip
    return Task(dataset, y, rows, binarized)


def check_flags(args: argparse.Namespace) -> None:
    """A ValueError for a number that nothing later would refuse, and the default of --epochs."""
    args.epochs = EPOCHS.get(args.data, 200) if args.epochs is None else args.epochs
    for name in ("epochs", "labels", "batch_size", "labelled_batch_size"):
        if getattr(args, name) < 1:
            raise ValueError(f"--{name.replace('_', '-')} must be at least 1, got {getattr(args, name)}")


def keep_labels(args: argparse.Namespace, dataset: Dataset) -> Tensor:
    """`--labels` of the training labels, as many of each class; -1 elsewhere."""
    if dataset.num_classes < 2:
        raise ValueError(
            f"--data {args.data} has {dataset.num_classes} classes; this example needs labels of two or more"
        )
    per_class, rest = divmod(args.labels, dataset.num_classes)
    if per_class == 0 or rest:
        raise ValueError(
            f"--labels must be a multiple of {dataset.num_classes}, the number of classes of {dataset.name}, "
            f"got {args.labels}"
        )
    return mask_labels(dataset.train.y, per_class=per_class, seed=args.seed)


def prepare_folder(args: argparse.Namespace, paper: str) -> None:
    """Writes settings.json into a new folder, or checks that the run in it has the same settings."""
    path = args.out / "settings.json"
    settings = {"paper": paper} | {k: _plain(v) for k, v in vars(args).items() if k not in RUN_FLAGS}
    if args.resume:
        compare_settings(settings, path)
    elif args.out.exists() and any(args.out.iterdir()):
        make_room(args, path)
    write_json(settings, path)


def make_room(args: argparse.Namespace, settings_path: Path) -> None:
    """Deletes another run's files where --overwrite says so; else, and for other files, a ValueError."""
    if not settings_path.exists():
        raise ValueError(f"--out {args.out} holds files that are not a run's; choose another folder")
    if not args.overwrite:
        raise ValueError(f"--out {args.out} holds another run; add --resume or --overwrite, or choose another folder")
    for name in ("settings.json", "metrics.csv", "summary.json", "checkpoints/*.ckpt", "figures/*.png"):
        for file in args.out.glob(name):
            file.unlink()
    for folder in ("checkpoints", "figures"):
        if (args.out / folder).exists():
            (args.out / folder).rmdir()


def compare_settings(settings: dict[str, Any], path: Path) -> None:
    """A ValueError that lists the settings in which the run to resume differs; more epochs are allowed."""
    if not path.exists():
        raise ValueError(f"--resume: {path.parent} holds no run; leave --resume out to start one")
    try:
        saved = json.loads(path.read_text())
    except ValueError as error:
        raise ValueError(f"--resume: {path} is not a settings file: {error}") from error
    names = [name for name in settings | saved if settings.get(name) != saved.get(name) and name != "epochs"]
    if names:
        listed = "; ".join(f"{name} was {saved.get(name)!r} and is now {settings.get(name)!r}" for name in names)
        raise ValueError(f"--resume: the run in {path.parent} has other settings: {listed}")


def train(args: argparse.Namespace, objective: Objective, task: Task) -> list[dict[str, float]]:
    """Fits the objective, with a checkpoint every epoch; leaves it with the weights of the best validation epoch."""
    held_out = task.dataset.validation
    try:
        return fit(
            objective, task.batches, epochs=args.epochs, validation=(held_out.x, held_out.y),
            validation_bound_x=task.bound_x(held_out.x), learning_rate=args.learning_rate,
            weight_decay=args.weight_decay, kl_warmup=args.kl_warmup, gradient_clip_norm=args.gradient_clip,
            restore_best=True, out=args.out, resume=args.resume, device=args.device, precision=args.precision,
            progress=False if args.quiet else None,
        )  # fmt: skip
    except ValueError:
        if not (args.out / "metrics.csv").exists():  # a run that never began leaves no settings behind
            (args.out / "settings.json").unlink()
            remove_if_empty(args.out)
        raise


def remove_if_empty(folder: Path) -> None:
    """Removes the folder, and the default `runs` around it, where nothing is in them."""
    for path in (folder, folder.parent):
        if path.name and path.is_dir() and not any(path.iterdir()) and path in (folder, Path("runs")):
            path.rmdir()


def train_on_labels(
    classifier: nn.Module, task: Task, *, learning_rate: float, seed: int, steps: int = 1000
) -> nn.Module:
    """The baseline: the same classifier, trained by cross-entropy on the labelled rows alone.

    Full batches, binarised anew where the task's are. Every 20 steps its accuracy on the validation set is taken, and
    the best weights are kept, as they are for the model.
    """
    torch.manual_seed(seed)
    known = task.y >= 0
    x, y, held_out = task.dataset.train.x[known], task.y[known], task.dataset.validation
    optimizer = torch.optim.Adam(classifier.parameters(), lr=learning_rate)
    best, weights = -1.0, classifier.state_dict()
    for step in range(1, steps + 1):
        optimizer.zero_grad()
        logits = classifier(torch.bernoulli(x) if task.binarized else x).logits
        nn.functional.cross_entropy(logits, y).backward()
        optimizer.step()
        if step % 20 == 0 and (found := accuracy(classifier, held_out.x, held_out.y)) > best:
            best, weights = found, {name: value.clone() for name, value in classifier.state_dict().items()}
    classifier.load_state_dict(weights)
    return classifier


def summarise(
    args: argparse.Namespace,
    paper: str,
    objective: Objective,
    baseline: nn.Module,
    task: Task,
    history: list[dict[str, float]],
) -> dict[str, Any]:
    """Measures the test set, once, and writes summary.json."""
    test = task.dataset.test
    measured = evaluate(objective, test.x, test.y, bound_x=task.bound_x(test.x))
    best = max(history, key=lambda row: row["validation_accuracy"])
    summary = {
        "paper": paper,
        "data": args.data,
        "labels": int((task.y >= 0).sum()),
        "seed": args.seed,
        "epochs": len(history),
        "best_epoch": best["epoch"],
        "seconds": round(sum(row["seconds"] for row in history), 1),
        "validation_accuracy": best["validation_accuracy"],
        "test_accuracy": measured["accuracy"],
        "baseline_accuracy": accuracy(baseline, test.x, test.y),
        "bound": measured["unlabelled"],
        "versions": versions(),
    }
    write_json(summary, args.out / "summary.json")
    return summary


def versions() -> dict[str, str]:
    """What the numbers were computed with."""
    packages = ("torch", "pyro-ppl", "lightning", "numpy")
    return {"python": platform.python_version(), "semipyro": semipyro.__version__} | {p: version(p) for p in packages}


def draw_figures(out: Path, objective: Objective, task: Task, history: list[dict[str, float]], seed: int) -> None:
    """Training curves, samples, analogies, latent space and confusion matrix, as figures/*.png."""
    torch.manual_seed(seed)
    dataset, model, guide = task.dataset, objective.model, objective.guide
    x, y = dataset.test.x, dataset.test.y
    few, some = slice(10), slice(1000)
    figures = {
        "training_curves": plots.training_curves(history),
        "class_samples": plots.class_samples(model, task.num_classes, dataset.shape),
        "analogies": plots.analogies(model, guide, x[few], task.num_classes, dataset.shape),
        "latent_pca": plots.latent_space(guide, x[some], y[some]),
        "latent_tsne": plots.latent_space(guide, x[some], y[some], method="tsne", seed=seed),
        "confusion_matrix": plots.confusion_matrix(guide.classify, x, y, num_classes=task.num_classes),
    }
    for name, figure in figures.items():
        plots.save(figure, out / "figures" / f"{name}.png")


def print_table(args: argparse.Namespace, model_name: str, summary: dict[str, Any]) -> None:
    """What the run has found, and where its files are."""
    if args.quiet:
        return
    rows = [
        (f"{model_name}, {summary['labels']} labels and the unlabelled rows", summary["test_accuracy"]),
        (f"the same classifier, {summary['labels']} labels alone", summary["baseline_accuracy"]),
    ]
    print(f"\n{'':52}test accuracy")
    for name, value in rows:
        print(f"{name:52}{value:13.1%}")
    print(f"\nbest validation accuracy in epoch {summary['best_epoch']} of {summary['epochs']}; "
          f"test bound {summary['bound']:.2f} nats; trained in {summary['seconds']:.0f} s")  # fmt: skip
    print(f"settings, numbers, checkpoints and figures are in {args.out}", file=sys.stdout)


def write_json(content: dict[str, Any], path: Path) -> None:
    """Writes a JSON file whole or not at all."""
    write_whole(path, lambda temporary: temporary.write_text(json.dumps(content, indent=2) + "\n"))


def _plain(value: object) -> object:
    return str(value) if isinstance(value, Path) else value
