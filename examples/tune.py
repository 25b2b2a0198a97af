"""Searches settings for your own data: draws them, trains, and stops early what falls behind, by validation accuracy.

Without flags: M2 on 8x8 digits with 100 labels, 20 trials of 30 epochs, about ten minutes on two cores. Your data:
`--data mine.npz` (arrays x and y, -1 where there is no label). The next settings are drawn where earlier ones did well
(Optuna's TPE); a trial below the median of the others at the same epoch is stopped. The study is kept in a database:
the same command goes on with it, and several machines share it if they are given the same --store. Test rows are not
looked at; the command that this prints at the end trains with the best settings, and measures on them.
"""

import argparse
import copy
import hashlib
import json
import shlex
import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import optuna
import torch
from experiments import line
from experiments.base import arguments
from matplotlib.figure import Figure
from matplotlib.ticker import NullFormatter, PercentFormatter
from optuna.trial import FrozenTrial, Trial, TrialState
from semipyro.files import write_json
from semipyro.inference import check_fit_settings, fit
from semipyro.papers import PAPERS
from semipyro.plots.common import new_figure
from shared import workers
from shared.command import Help, Parser, command, count, say
from shared.figures import save_figures
from shared.fitting import Fitting
from shared.flags import add_data_flags, add_device_flags
from shared.task import Task, make_task, read_data
from shared.training import rehearse
from tqdm import tqdm

TRIAL_STEP, NUM_SEEDS = 7919, 2**32  # a prime, so that seeds of trials do not repeat; how many seeds Optuna takes
DONE = (TrialState.COMPLETE, TrialState.PRUNED)


class Row(NamedTuple):
    """The script that trains a row of papers.py, with the flags that name the row and the weights that it has."""

    script: str
    flags: tuple[str, ...]
    weights: Mapping[str, str]


BOTH = {"labelled_weight": "--labelled-weight", "classification_weight": "--classification-weight"}
LAMBDA = {"labelled_weight": "--lambda"}
ROWS = {
    "m2": Row("ss_vae_m2", (), BOTH),
    "adgm-workshop": Row("ss_adgm", ("--form", "workshop"), BOTH),
    "adgm": Row("ss_adgm", ("--form", "icml"), BOTH),
    "sdgm": Row("ss_adgm", ("--form", "sdgm"), BOTH),
    "latent-classifier": Row("ss_latent_classifier", ("--form", "ours"), LAMBDA),
    "simplified": Row("ss_latent_classifier", ("--form", "simplified"), LAMBDA),
}
RANGES = {"labelled_weight": (0.01, 10.0), "classification_weight": (0.1, 100.0)}


def parser() -> Parser:
    """All flags."""
    flags = Parser(prog="tune.py", description=__doc__, formatter_class=Help)
    add_data_flags(flags, "100")
    add = flags.add_argument_group("search").add_argument
    add("--model", choices=list(ROWS), default="m2", help="row of papers.py")
    add("--trials", type=count, default=20, help="how many settings to try, those of earlier commands counted in")
    add("--epochs", type=count, default=30, help="of a trial that is not stopped")
    add_device_flags(add)
    add("--jobs", type=count, default=1, help="processes; the cores are divided among them")
    add("--store", help="database of the study: any URL that Optuna takes; without it, a SQLite file in --out")
    add("--study", help="name of the study; without it, the data's and the model's")
    add("--out", type=Path, default=Path("runs") / "tune", help="folder for the study, best.json and a figure")
    add("--quiet", action="store_true", help="show nothing but warnings and errors")
    return flags


def run(args: argparse.Namespace) -> None:
    """Checks the data, starts the workers, tells what is best."""
    check_fit_settings(epochs=args.epochs, device=args.device, precision=args.precision)
    task = make_task(read_data(args))
    rehearse(PAPERS[args.model].build(task.x_dim, task.y_dim, likelihood=task.likelihood), task)
    args.out.mkdir(parents=True, exist_ok=True)
    with line.answering(store(args)):
        search(args)


def search(args: argparse.Namespace) -> None:
    """Goes on with the study until it has as many trials as are asked for."""
    study = open_study(args)
    before = finished(study)
    say(f"{before} of {args.trials} trials are done; the study is {name_of_study(args)} in {store(args)}",
        quiet=args.quiet)  # fmt: skip
    with (
        workers.started(worker, [(args, share) for share in shares(args.trials - before, args.jobs)]) as processes,
        tqdm(total=args.trials, initial=before, unit="trial", disable=True if args.quiet else None) as bar,
    ):
        while any(process.is_alive() for process in processes):
            time.sleep(0.5)
            bar.update(finished(study) - bar.n)
    tell(args, study)


def store(args: argparse.Namespace) -> str:
    """The database of the study."""
    return args.store or f"sqlite:///{args.out.resolve() / 'study.db'}"


def name_of_study(args: argparse.Namespace) -> str:
    """--study, or a name that changes with whatever would make the trials of two commands another task."""
    words = json.dumps(data_flags(args) | {"epochs": args.epochs, "precision": args.precision})
    usual = f"{Path(args.data).stem}-{args.model}-{hashlib.sha256(words.encode()).hexdigest()[:8]}"
    return args.study or usual


def data_flags(args: argparse.Namespace) -> dict[str, Any]:
    """The flags of the data, as they were given."""
    return asdict(read_data(args))


def open_study(args: argparse.Namespace) -> optuna.Study:
    """The study in its database."""
    pruner = optuna.pruners.MedianPruner(n_startup_trials=4, n_warmup_steps=args.epochs // 5)
    return line.open_study(line.open_storage(store(args)), name_of_study(args), direction="maximize", pruner=pruner)


def shares(trials: int, jobs: int) -> list[int]:
    """How many of the trials each process takes."""
    each, more = divmod(max(trials, 0), jobs)
    return [each + (number < more) for number in range(jobs) if each + (number < more)]


def finished(study: optuna.Study) -> int:
    """How many trials have ended, by themselves or by the pruner."""
    return len(study.get_trials(deepcopy=False, states=DONE))


def worker(args: argparse.Namespace, share: int) -> None:
    """A process that tries its share of settings, or fewer, where other machines were faster."""
    workers.share_cores(args.jobs)
    task = make_task(read_data(args))
    with line.answering(store(args)):
        study = open_study(args)
        for _ in range(share):
            if finished(study) < args.trials and workers.is_wanted():
                study.optimize(partial(score, args, task), n_trials=1)


def score(args: argparse.Namespace, task: Task, trial: Trial) -> float:
    """The best validation accuracy of a training with the settings of a trial.

    What is drawn depends on the seed, the trial's number and the trials before it, whichever process draws. A training
    that breaks counts as one that fell behind.
    """
    seed = (task.seed + TRIAL_STEP * trial.number) % NUM_SEEDS
    trial.study.sampler = optuna.samplers.TPESampler(seed=seed, n_startup_trials=8)
    build, fitting = suggest_build(args.model, task, trial), suggest_fitting(args, trial)
    torch.manual_seed(task.seed)
    objective = PAPERS[args.model].build(task.x_dim, task.y_dim, **build)
    x, y = task.dataset.validation.x, task.dataset.validation.y

    def report(row: dict[str, float]) -> None:
        trial.report(row["validation_accuracy"], int(row["epoch"]))
        if trial.should_prune():
            raise optuna.TrialPruned

    try:
        history = fit(
            objective, copy.deepcopy(task.batches), validation=(x, y), validation_bound_x=task.bound_x(x),
            monitor="accuracy", restore_best=True, progress=False, report=report, **fitting.keywords,
        )  # fmt: skip
    except FloatingPointError as error:
        trial.set_user_attr("error", str(error))
        raise optuna.TrialPruned from error
    return max(row["validation_accuracy"] for row in history)


def suggest_build(model: str, task: Task, trial: Trial | FrozenTrial) -> dict[str, Any]:
    """Keywords of `build` that a trial tries."""
    build: dict[str, Any] = {
        "z_dim": trial.suggest_int("z_dim", 2, 100, log=True),
        "hidden": [trial.suggest_int("width", 50, 500, log=True)] * trial.suggest_int("layers", 1, 2),
        "likelihood": task.likelihood,
    }
    build |= {name: trial.suggest_float(name, *RANGES[name], log=True) for name in ROWS[model].weights}
    if task.likelihood == "normal":
        build["scale"] = trial.suggest_float("scale", 0.05, 1.0, log=True)
    return build


def suggest_fitting(args: argparse.Namespace, trial: Trial | FrozenTrial) -> Fitting:
    """How a trial fits: with the learning rate that it tries."""
    rate = trial.suggest_float("learning_rate", 3e-4, 1e-2, log=True)
    return Fitting(args.epochs, learning_rate=rate, device=args.device, precision=args.precision)


def tell(args: argparse.Namespace, study: optuna.Study) -> None:
    """The best settings, the command that trains with them, best.json and a figure."""
    done = study.get_trials(states=(TrialState.COMPLETE,))
    if not done:
        errors = [trial.user_attrs["error"] for trial in study.get_trials() if "error" in trial.user_attrs]
        last = f" The last one broke: {errors[-1]}" if errors else ""
        raise ValueError(
            f"no trial of the study {name_of_study(args)} came to its end; --trials more, or look at the data.{last}"
        )
    pruned = len(study.get_trials(states=(TrialState.PRUNED,)))
    say(f"\n{len(done)} trials to the end, {pruned} stopped early. Validation accuracy of the best:", quiet=args.quiet)
    for trial in sorted(done, key=lambda trial: -(trial.value or 0))[:5]:
        found = ", ".join(f"{name} {value:.3g}" for name, value in trial.params.items())
        say(f"  {trial.value:.1%}  {found}", quiet=args.quiet)
    best = study.best_trial
    words = training_command(args, best)
    write_json(args.out / "best.json", {"validation_accuracy": best.value, "settings": best.params, "command": words})
    save_figures(args.out, figures(study))
    say(f"The figure and best.json are in {args.out}. To train with the best and measure on test rows:\n\n  {words}",
        quiet=args.quiet)  # fmt: skip


def training_command(args: argparse.Namespace, best: FrozenTrial) -> str:
    """The command of the row's script with the best settings."""
    row, found = ROWS[args.model], best.params
    flags = {
        **data_flags(args), "epochs": args.epochs, "device": args.device, "precision": args.precision,
        "likelihood": "auto", "z_dim": found["z_dim"], "hidden": [found["width"]] * found["layers"],
        "learning_rate": found["learning_rate"], "scale": found.get("scale"),
    }  # fmt: skip
    given = {name: float(f"{value:.4g}") if isinstance(value, float) else value for name, value in flags.items()}
    words = arguments({name: value for name, value in given.items() if value is not None})
    words += [word for name, flag in row.weights.items() for word in (flag, f"{found[name]:.4g}")]
    return shlex.join(["python", f"examples/{row.script}.py", *row.flags, *words])


def figures(study: optuna.Study) -> dict[str, Figure]:
    """Accuracy by trial and by each setting; trials that were stopped early in grey, with the best that they had."""
    trials = study.get_trials(deepcopy=False, states=DONE)
    best = [max([*trial.intermediate_values.values(), trial.value or 0.0]) for trial in trials]
    colours = ["C0" if trial.state == TrialState.COMPLETE else "0.75" for trial in trials]
    names = list(study.best_trial.params)
    figure = new_figure(11.0, 4.6)
    panels = figure.subplots(2, -(-(len(names) + 1) // 2), sharey=True).flatten()
    panels[0].scatter([trial.number for trial in trials], best, c=colours, s=16)
    panels[0].set(xlabel="trial")
    for axes, name in zip(panels[1:], names, strict=False):
        axes.scatter([trial.params[name] for trial in trials], best, c=colours, s=16)
        axes.set(xlabel=name.replace("_", " "), xscale="linear" if name == "layers" else "log")
        axes.axvline(study.best_trial.params[name], color="tab:red", linewidth=0.8, zorder=0)
        axes.xaxis.set_minor_formatter(NullFormatter())
        if name == "layers":
            axes.set_xticks([1, 2])
    for axes in panels[len(names) + 1 :]:
        axes.set_visible(False)
    for axes in panels:
        axes.yaxis.set_major_formatter(PercentFormatter(1.0, decimals=0))
        axes.grid(alpha=0.25)
    figure.supylabel("best validation accuracy", size="medium")
    return {"search": figure}


def main(arguments: Sequence[str] | None = None) -> None:
    """The command line."""
    command(parser(), run, arguments, goes_on="the same command goes on with the study")


if __name__ == "__main__":
    main()
