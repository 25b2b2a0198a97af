"""The flags that several scripts have, a function for each group of them."""

import argparse
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from semipyro.distributions import ACTIVATIONS, FLOWS, LIKELIHOODS
from semipyro.inference.training.precision import PRECISIONS
from semipyro.inference.training.run import DEVICES

from .command import Help, Parser, count, fraction, natural, positive, weight

WEIGHTS = {
    "labelled_weight": "weight of the mean labelled bound beside the unlabelled",
    "classification_weight": "weight of the mean log q(y|x) of the labelled rows",
    "adversary_weight": "weight of the adversary's mean log f(y|z)",
}


def make_parser(name: str, description: str | None, *, labels: str = "100") -> Parser:
    """A parser with the flags that every example has; `labels` says how many rows keep theirs without `--labels`."""
    parser = Parser(prog=f"{name}.py", description=description, formatter_class=Help)
    parser.set_defaults(name=name)
    add_data_flags(parser, labels)
    add_training_flags(parser)
    add_run_flags(parser, name)
    return parser


def add_data_flags(parser: Parser, labels: str) -> None:
    """Adds the flags that `task.read_data` reads."""
    add = parser.add_argument_group("data").add_argument
    add("--data", default="digits", help="digits, moons, circles, mnist, fashion-mnist, omniglot, or a .npz with x, y")
    add("--data-root", help="folder of the data sets; without it SEMIPYRO_DATA, else the user's cache folder")
    add("--labels", type=natural, help="how many training rows keep their label, rounded down to the same number per "
        f"class; without it {labels}, or all those of a .npz in which some rows have none (y = -1)")  # fmt: skip
    add("--include-labelled", action=argparse.BooleanOptionalAction, default=False, help="count the labelled rows "
        "among the unlabelled ones too, without their labels")  # fmt: skip
    add("--batch-size", type=count, default=100, help="unlabelled rows in a batch")
    add("--labelled-batch-size", type=count, default=100, help="labelled rows in a batch; fewer rows are repeated")
    add("--binarize", action=argparse.BooleanOptionalAction, help="draw pixels as 0 or 1, anew in each batch; without "
        "it, drawn where the likelihood is Bernoulli")  # fmt: skip
    add("--seed", type=natural, default=0, help="of the labels, the networks, the batches and the noise")


def add_training_flags(parser: Parser) -> None:
    """Adds the flags that `fitting.read_fitting` reads."""
    add = parser.add_argument_group("training").add_argument
    add("--epochs", type=count, help="passes over the unlabelled rows; without it 100 for digits and .npz, else 60")
    add("--learning-rate", type=positive, default=3e-3, help="of Adam, at the start")
    add("--decay-every", type=count, help="multiply the learning rate by --decay after every so many epochs; without "
        "it, constant")  # fmt: skip
    add("--decay", type=positive, default=0.75, help="factor of --decay-every")
    add("--linear-decay-from", type=fraction, metavar="FRACTION", help="let the learning rate fall to zero after this "
        "fraction of the epochs, such as 0.5; without it, constant")  # fmt: skip
    add("--weight-decay", type=weight, default=0.0, help="weight, in the loss, of half the squares of all matrices")
    add("--kl-warmup", type=natural, default=0, help="epochs over which the weight of the KL terms rises to 1")
    add("--gradient-clip", type=positive, help="largest norm of the gradient; without it, not clipped")
    add("--gradient-clip-value", type=positive, help="largest absolute value of its elements, after that; without it, "
        "not clipped")  # fmt: skip
    add_device_flags(add)


def add_device_flags(add: Callable[..., Any]) -> None:
    """Adds the flags that choose the device, and the precision in which the networks compute."""
    add("--device", choices=list(DEVICES), default="auto", help="what to compute on")
    add("--precision", choices=list(PRECISIONS), default="32", help="bf16: inside the networks only; auto: bf16 where "
        "the device multiplies it in hardware")  # fmt: skip


def add_run_flags(parser: Parser, name: str) -> None:
    """Adds the flags that `run_folder.read_output` reads: where a run is written, and what it shows."""
    group = parser.add_argument_group("results")
    group.add_argument("--out", type=Path, default=Path("runs") / name, help="folder for settings, numbers, "
        "checkpoints and figures")  # fmt: skip
    add = group.add_mutually_exclusive_group().add_argument
    add("--resume", action="store_true", help="go on with the run in --out, to the numbers of a run without a break")
    add("--overwrite", action="store_true", help="delete the run in --out first")
    group.add_argument("--figures", action=argparse.BooleanOptionalAction, default=True, help="draw figures at the end")
    group.add_argument("--quiet", action="store_true", help="show nothing but warnings and errors")


def add_network_flags(
    parser: Parser,
    *,
    z_dim: int | None = 50,
    hidden: Sequence[int] = (500,),
    activation: str = "softplus",
    likelihood: str = "auto",
    scale: float | None = None,
    posterior: bool = True,
    classes: bool = True,
) -> None:
    """Adds flags for the keywords of a row's `build`.

    Args:
        parser: what receives the flags.
        z_dim: the default width of z; None where the model has no such keyword.
        hidden: the default widths of the hidden layers.
        activation: the default activation.
        likelihood: the default likelihood.
        scale: the standard deviation of a normal likelihood without --scale; None for one that is learnt.
        posterior: whether the flags of the posterior are added too.
        classes: whether the model has a y to sum over.
    """
    add = parser.add_argument_group("networks").add_argument
    if z_dim is not None:
        add("--z-dim", type=count, default=z_dim, help="width of the latent z")
    add("--hidden", type=count, nargs="*", default=list(hidden), help="widths of the hidden layers")
    add("--activation", choices=sorted(ACTIVATIONS), default=activation, help="between the layers")
    add("--likelihood", choices=["auto", *LIKELIHOODS], default=likelihood, help="of x; auto: Bernoulli for data in "
        "[0, 1], else normal")  # fmt: skip
    add("--scale", type=positive, help="fixed standard deviation of a normal likelihood; without it, "
        + ("learned" if scale is None else f"{scale:g}"))  # fmt: skip
    parser.set_defaults(usual_scale=scale)
    add("--num-samples", type=count, default=1, help="draws of the continuous latents that each bound averages over")
    if classes:
        add_sum_flag(parser)
    if posterior:
        add_posterior_flags(parser)


def add_sum_flag(parser: Parser) -> None:
    """Adds the flag that says how many classes an unknown y is summed over in training."""
    group = parser.add_argument_group("sum over the classes of a row without a label")
    group.add_argument("--summed-classes", type=count, help="in training, sum this many, the most probable ones, and "
        "one drawn class for all others, without bias: faster where there are many; without it, all")  # fmt: skip


def add_posterior_flags(parser: Parser) -> None:
    """Adds flags for the keywords of `papers.posterior`: what replaces the diagonal Gaussian in the guide."""
    add = parser.add_argument_group("posterior of the continuous latents", "a diagonal Gaussian, unless").add_argument
    add(
        "--flow",
        choices=list(FLOWS),
        help="carry the Gaussian through this normalizing flow; without it, leave it as it is",
    )
    add("--flow-length", type=count, help="how many transforms the flow has; without it 2")
    add("--flow-amortised", action="store_true", default=None, help="make the flow's parameters a network of x and y, "
        "instead of the same for all rows")  # fmt: skip
    add("--rank", type=count, help="a Gaussian with a covariance of this rank plus a diagonal; without it, the "
        "diagonal alone")  # fmt: skip


def add_start_flag(parser: Parser) -> None:
    """Adds the flag for pretraining, as in section 3.2 of the thesis."""
    parser.add_argument("--start-from", type=Path, help="folder of a run of ss_vae_m1.py with the same networks, whose "
        "p(x|z) and q(z|x) are where training starts; without it, at random weights")  # fmt: skip


def add_weight_flags(parser: Parser, defaults: dict[str, float], keyword: str, meaning: str) -> None:
    """Adds a flag for each weight of the objective, and `--KEYWORD`, which asks for the weights of the paper."""
    group = parser.add_argument_group("objective")
    for name, value in defaults.items():
        group.add_argument(f"--{name.replace('_', '-')}", type=weight, help=f"{WEIGHTS[name]} (default: {value:g})")
    group.add_argument(f"--{keyword}", type=weight, help=meaning)
