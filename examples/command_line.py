"""The command line that the examples share: flags, wrong use, and the folder of a run."""

import argparse
import json
import math
from collections.abc import Callable, Collection, Sequence
from pathlib import Path
from typing import Any, NoReturn

from semipyro.distributions import ACTIVATIONS, FLOWS, LIKELIHOODS
from semipyro.files import write_whole
from semipyro.inference.training.checkpoint import differences, read_checkpoint
from semipyro.inference.training.precision import PRECISIONS
from semipyro.inference.training.run import DEVICES

WEIGHTS = {
    "labelled_weight": "weight of the mean labelled bound beside the unlabelled",
    "classification_weight": "weight of the mean log q(y|x) of the labelled rows",
    "adversary_weight": "weight of the adversary's mean log f(y|z)",
}
# where a run goes and how it looks, not what it computes
RUN_FLAGS = ("name", "usual_scale", "out", "resume", "overwrite", "figures", "quiet")
TRAINING = ("checkpoints/*.ckpt", "checkpoints/.*.partial", "metrics.csv")  # what `fit` writes
RUN_FILES = (  # the settings last: as long as they are there, the folder is known to be a run's
    "figures/*.png",
    "figures/.*.partial",
    *(f"{part}{name}" for part in ("", "m2/", "guides/*/") for name in TRAINING),
    "comparison.json",
    "summary.json",
    ".*.partial",
    "settings.json",
)


class Parser(argparse.ArgumentParser):
    """Ends wrong use with exit status 2 and one line."""

    def error(self, message: str) -> NoReturn:
        """One line on standard error."""
        self.exit(2, f"{self.prog}: error: {' '.join(message.split())}\n")


class Help(argparse.ArgumentDefaultsHelpFormatter):
    """Ends a flag's explanation with its default, where it has one."""

    def _get_help_string(self, action: argparse.Action) -> str | None:
        absent = action.default is None or action.default is False
        return action.help if absent else super()._get_help_string(action)


def number(kind: type, accepted: Callable[[Any], bool], wanted: str) -> Callable[[str], Any]:
    """A flag's type: reads an int or a float, and refuses it unless it is what is wanted."""

    def read(text: str) -> Any:
        value = kind(text)
        if not accepted(value):
            raise argparse.ArgumentTypeError(f"must be {wanted}, got {text}")
        return value

    read.__name__ = kind.__name__  # argparse names it where the text is no number at all
    return read


count = number(int, lambda n: n >= 1, "at least 1")
natural = number(int, lambda n: 0 <= n < 2**63, "from 0 to 2**63 - 1")
positive = number(float, lambda value: 0 < value < math.inf, "positive and finite")
weight = number(float, lambda value: 0 <= value < math.inf, "finite and not negative")


def make_parser(name: str, description: str | None, *, labels: str = "100") -> Parser:
    """A parser with the flags that every example has; `labels` says how many rows keep theirs without `--labels`."""
    parser = Parser(prog=f"{name}.py", description=description, formatter_class=Help)
    parser.set_defaults(name=name)
    add_data_flags(parser, labels)
    add_training_flags(parser)
    add_run_flags(parser, name)
    return parser


def add_data_flags(parser: Parser, labels: str) -> None:
    """What is learnt from."""
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
    """Keywords of `fit`."""
    add = parser.add_argument_group("training").add_argument
    add("--epochs", type=count, help="passes over the unlabelled rows; without it 100 for digits and .npz, else 60")
    add("--learning-rate", type=positive, default=3e-3, help="of Adam, at the start")
    add("--decay-every", type=count, help="multiply the learning rate by --decay after every so many epochs; without "
        "it, constant")  # fmt: skip
    add("--decay", type=positive, default=0.75, help="factor of --decay-every")
    add("--weight-decay", type=weight, default=0.0, help="weight, in the loss, of half the squares of all matrices")
    add("--kl-warmup", type=natural, default=0, help="epochs over which the weight of the KL terms rises to 1")
    add("--gradient-clip", type=positive, help="largest norm of the gradient; without it, not clipped")
    add("--gradient-clip-value", type=positive, help="largest absolute value of its elements, after that; without it, "
        "not clipped")  # fmt: skip
    add_device_flags(add)


def add_device_flags(add: Callable[..., Any]) -> None:
    """What is computed on, and in."""
    add("--device", choices=list(DEVICES), default="auto", help="what to compute on")
    add("--precision", choices=list(PRECISIONS), default="32", help="bf16: inside the networks only; auto: bf16 where "
        "the device multiplies it in hardware")  # fmt: skip


def add_run_flags(parser: Parser, name: str) -> None:
    """Where the run goes, and how it looks."""
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
) -> None:
    """Keywords of the models' and guides' `build`; with a `z_dim` of None, or no `posterior`, without those flags."""
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
    if posterior:
        add_posterior_flags(parser)


def add_posterior_flags(parser: Parser) -> None:
    """Keywords of `papers.posterior`: which guide stands in the diagonal Gaussian's place."""
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
    """Pretraining, as in the thesis' section 3.2."""
    parser.add_argument("--start-from", type=Path, help="folder of a run of ss_vae_m1.py with the same networks, whose "
        "p(x|z) and q(z|x) are where training starts; without it, at random weights")  # fmt: skip


def posterior_settings(args: argparse.Namespace) -> dict[str, Any]:
    """Those keywords that were given; a ValueError for some that contradict each other."""
    given = {name: getattr(args, name, None) for name in ("flow", "flow_length", "flow_amortised", "rank")}
    given = {name: value for name, value in given.items() if value is not None}
    for name in ("flow_length", "flow_amortised"):
        if name in given and "flow" not in given:
            raise ValueError(f"--{name.replace('_', '-')} belongs to --flow; name a flow, or leave it out")
    if {"flow", "rank"} <= set(given):
        raise ValueError("--flow and --rank are two posteriors; leave one out")
    return given


def add_weight_flags(parser: Parser, defaults: dict[str, float], keyword: str, meaning: str) -> None:
    """A flag for each weight of the objective, and `--KEYWORD` for those of the paper."""
    group = parser.add_argument_group("objective")
    for name, value in defaults.items():
        group.add_argument(f"--{name.replace('_', '-')}", type=weight, help=f"{WEIGHTS[name]} (default: {value:g})")
    group.add_argument(f"--{keyword}", type=weight, help=meaning)


def given_weights(args: argparse.Namespace, defaults: dict[str, float], keyword: str) -> dict[str, float] | None:
    """The weights of the flags, or None where `--KEYWORD` asks for those of the paper; a ValueError for both."""
    given = {name: getattr(args, name) for name in defaults if getattr(args, name) is not None}
    if getattr(args, keyword) is None:
        return defaults | given
    if given:
        flags = " and ".join(f"--{name.replace('_', '-')}" for name in defaults)
        raise ValueError(f"--{keyword} sets the weights; leave {flags} out")
    return None


def command(
    parser: Parser,
    run: Callable[[argparse.Namespace], None],
    arguments: Sequence[str] | None = None,
    *,
    goes_on: str = "--resume goes on from the last whole epoch",
) -> None:
    """Runs an example: wrong use of any kind ends with exit status 2 and one line, a loss that breaks with 1.

    `goes_on` says what a user can do after Ctrl-C.
    """
    args = parser.parse_args(arguments)
    try:
        run(args)
    except (ValueError, OSError) as error:  # with the flags for the arguments of `load`
        parser.error(str(error).replace("name_or_path", "--data").replace("root= or", "--data-root or"))
    except FloatingPointError as error:
        parser.exit(1, f"{parser.prog}: {error}\n")
    except KeyboardInterrupt:
        parser.exit(130, f"\n{parser.prog}: stopped; {goes_on}\n")
    except SystemExit as stopped:
        if stopped.code is not None:
            raise
        parser.exit(143, f"{parser.prog}: stopped; {goes_on}\n")  # by SIGTERM, in fit


def name_folder(args: argparse.Namespace, form: str, usual: str) -> None:
    """Gives the default folder the form of the model as its ending, where it is not the usual one."""
    default = Path("runs") / args.name
    if args.out == default and form != usual:
        args.out = default.with_name(f"{args.name}_{form.replace('-', '_')}")


def prepare_folder(
    args: argparse.Namespace, paper: str, build: dict[str, Any], *, free: Collection[str] = ("epochs",)
) -> None:
    """Makes --out the folder of this run: a new one, an overwritten one, or the one to resume.

    `settings.json` receives the flags, with what they leave open decided, and the keywords of the paper's `build`.
    Those in `free` may differ from the run's to resume. Whatever is refused is refused before anything is written or
    deleted.
    """
    path = args.out / "settings.json"
    flags = {name: value for name, value in vars(args).items() if name not in (*RUN_FLAGS, *build)}
    flags = {name: str(value) if isinstance(value, Path) else value for name, value in flags.items()}
    settings = {"paper": paper, **flags, "build": build}
    old = check_folder(args)
    if args.resume:
        compare_settings(settings, path, free)
        check_epochs(args)
    delete(args, old)
    write_json(settings, path)


def check_folder(args: argparse.Namespace) -> list[Path]:
    """The files of another run that --overwrite is to delete; a ValueError where --out cannot be this run's folder."""
    path = args.out / "settings.json"
    if args.out.exists() and not args.out.is_dir():
        raise ValueError(f"--out {args.out} is a file; name a folder")
    if args.resume:
        if not path.exists():
            raise ValueError(f"--resume: {args.out} holds no run; leave --resume out to start one")
        return []
    if not args.out.exists() or not any(args.out.iterdir()):
        return []
    if not path.exists():
        raise ValueError(f"--out {args.out} holds files that are not a run's; choose another folder")
    if not args.overwrite:
        raise ValueError(f"--out {args.out} holds another run; add --resume or --overwrite, or choose another folder")
    read_settings(path)
    files = [file for pattern in RUN_FILES for file in args.out.glob(pattern)]
    if others := set(args.out.glob("checkpoints/*")) - set(files):
        raise ValueError(f"--overwrite: {min(others)} is not a run's file; move it, or choose another folder")
    return files


def delete(args: argparse.Namespace, files: list[Path]) -> None:
    """These files of a run, and the folders that they leave empty."""
    for file in files:
        file.unlink()
    inside = {folder for file in files for folder in file.parents if args.out in folder.parents}
    for folder in sorted(inside, reverse=True):  # a folder after those in it
        if not any(folder.iterdir()):
            folder.rmdir()


def read_settings(path: Path) -> dict[str, Any]:
    """The settings of a run, those of its `build` among the others; a ValueError where the file is not a run's."""
    try:
        saved = json.loads(path.read_text())
    except ValueError:
        saved = None
    if not isinstance(saved, dict) or "paper" not in saved:
        raise ValueError(f"{path} is not the settings file of a run; choose another folder")
    return flat(saved)


def flat(settings: dict[str, Any]) -> dict[str, Any]:
    """The settings in one level."""
    return {name: value for name, value in settings.items() if name != "build"} | dict(settings.get("build", {}))


def compare_settings(settings: dict[str, Any], path: Path, free: Collection[str]) -> None:
    """A ValueError that lists the settings, but for those in `free`, in which the run to resume differs."""
    now, saved, ignored = flat(settings), read_settings(path), dict.fromkeys(free)
    if different := differences(now | ignored, saved | ignored):
        raise ValueError(f"--resume: the run in {path.parent} has other settings: {different}")


def check_epochs(args: argparse.Namespace) -> None:
    """A ValueError where the run to resume has more epochs behind it than are asked for."""
    checkpoints = args.out.glob("**/checkpoints/last.ckpt")
    done = max((len(read_checkpoint(last)["history"]) for last in checkpoints), default=0)
    if args.epochs < done:
        raise ValueError(f"--epochs {args.epochs}: the run in {args.out} has {done} behind it; ask for that or more")


def write_json(content: dict[str, Any], path: Path) -> None:
    """Writes a JSON file whole or not at all."""
    write_whole(path, lambda temporary: temporary.write_text(json.dumps(content, indent=2) + "\n"))
