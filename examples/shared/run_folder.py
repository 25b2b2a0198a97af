"""The folder of a run: what may be written there, its settings.json, and the model that is read from it."""

import argparse
from collections.abc import Collection, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from semipyro.files import hold, read_json, write_json
from semipyro.inference import Objective, load_weights
from semipyro.inference.training.checkpoint import differences, read_checkpoint
from semipyro.inference.training.fit import LOCK
from semipyro.papers import PAPERS

from .fitting import Fitting
from .recipe import Recipe
from .task import Task

# flags that say where a run goes and how it looks, not what it computes
RUN_FLAGS = ("name", "usual_scale", "out", "resume", "overwrite", "figures", "quiet")
LOCKS = (".lock", LOCK)  # of this script and of `fit`: empty files, and of nobody where no process holds them
TRAINING = ("checkpoints/*.ckpt", "checkpoints/.*.partial", "metrics.csv", LOCK)  # what `fit` writes
RUN_FILES = (  # the settings last: as long as they are there, the folder is known to be a run's
    "figures/*.png",
    "figures/.*.partial",
    *(f"{part}{name}" for part in ("", "m2/", "guides/*/") for name in TRAINING),
    "comparison.json",
    "summary.json",
    ".*.partial",
    "settings.json",
)


@dataclass(frozen=True)
class Output:
    """Where a run writes, and what it shows.

    Attributes:
        folder: receives settings, numbers, checkpoints and figures.
        resume: whether to go on with the run in the folder.
        overwrite: whether to delete the run in the folder first.
        figures: whether to draw.
        quiet: whether to show nothing but warnings and errors.
        flags: the flags as they were given, for settings.json.
    """

    folder: Path
    resume: bool
    overwrite: bool
    figures: bool
    quiet: bool
    flags: Mapping[str, Any]


def read_output(args: argparse.Namespace, folder: Path | None = None, **noted: Any) -> Output:
    """Reads the flags of `add_run_flags`; `folder` replaces --out, and what is `noted` goes into settings.json too."""
    return Output(folder or args.out, args.resume, args.overwrite, args.figures, args.quiet, {**vars(args), **noted})


def folder_of_form(args: argparse.Namespace, form: str, usual: str) -> Path:
    """The folder --out. The default one ends with the form of the model, where that is not the usual form."""
    default = Path("runs") / args.name
    if args.out == default and form != usual:
        return default.with_name(f"{args.name}_{form.replace('-', '_')}")
    return Path(args.out)


@contextmanager
def prepare_folder(
    output: Output, recipe: Recipe, task: Task, fitting: Fitting, *, free: Collection[str] = ("epochs",)
) -> Iterator[None]:
    """Makes the folder of this run, which is new, or that of a run to overwrite or to resume, and writes settings.json.

    The folder is this process' alone until the block ends. Settings in `free` may differ from those of the run to
    resume. Whatever is refused is refused before anything is written or deleted, the lock too.
    """
    path, settings = output.folder / "settings.json", settings_of(output, recipe, task, fitting)
    if fitting.linear_decay_from is not None:
        free = [name for name in free if name != "epochs"]  # on which the learning rate depends

    def check() -> list[Path]:
        old = check_folder(output)
        if output.resume:
            compare_settings(settings, path, free)
            check_epochs(output.folder, fitting.epochs)
        return old

    check()
    with hold(output.folder):
        old = check()  # again, of what no other process changes now
        with hold(output.folder, LOCK):  # of a `fit` that was called without a script
            delete(output.folder, old)
        write_json(path, settings)
        yield


def settings_of(output: Output, recipe: Recipe, task: Task, fitting: Fitting) -> dict[str, Any]:
    """The content of settings.json: the flags, with what they leave open decided, and the keywords of `build`."""
    decided = {"epochs": fitting.epochs, "labels": task.num_labels, "binarize": task.binarized,
               "likelihood": task.likelihood}  # fmt: skip
    flags = {name: str(value) if isinstance(value, Path) else value for name, value in output.flags.items()}
    kept = {name: value for name, value in (flags | decided).items() if name not in (*RUN_FLAGS, *recipe.build)}
    return {"paper": recipe.paper, **kept, "build": recipe.build}


def check_folder(output: Output) -> list[Path]:
    """The files of another run that --overwrite is to delete; a ValueError where this run cannot have the folder."""
    folder, path = output.folder, output.folder / "settings.json"
    if folder.exists() and not folder.is_dir():
        raise ValueError(f"--out {folder} is a file; name a folder")
    if output.resume:
        if not path.exists():
            raise ValueError(f"--resume: {folder} holds no run; leave --resume out to start one")
        return []
    if not folder.exists() or all(file.name in LOCKS for file in folder.iterdir()):
        return []
    if not path.exists():
        raise ValueError(f"--out {folder} holds files that are not a run's; choose another folder")
    if not output.overwrite:
        raise ValueError(f"--out {folder} holds another run; add --resume or --overwrite, or choose another folder")
    read_settings(path)
    files = [file for pattern in RUN_FILES for file in folder.glob(pattern)]
    if others := set(folder.glob("checkpoints/*")) - set(files):
        raise ValueError(f"--overwrite: {min(others)} is not a run's file; move it, or choose another folder")
    return files


def delete(folder: Path, files: list[Path]) -> None:
    """Deletes these files of a run, and the folders inside of it that they leave empty."""
    for file in files:
        file.unlink()
    inside = {parent for file in files for parent in file.parents if folder in parent.parents}
    for each in sorted(inside, reverse=True):  # a folder after those in it
        if not any(each.iterdir()):
            each.rmdir()


def read_settings(path: Path) -> dict[str, Any]:
    """The settings of a run, those of its `build` among the others; a ValueError where the file is not a run's."""
    try:
        saved = read_json(path)
    except ValueError as error:
        raise ValueError(f"{path} is not the settings file of a run ({error}); choose another folder") from error
    if not isinstance(saved.get("paper"), str) or not isinstance(saved.get("build", {}), dict):
        raise ValueError(f"{path} is not the settings file of a run; choose another folder")
    return flat(saved)


def flat(settings: dict[str, Any]) -> dict[str, Any]:
    """The settings with those of `build` among the others."""
    return {name: value for name, value in settings.items() if name != "build"} | dict(settings.get("build", {}))


def compare_settings(settings: dict[str, Any], path: Path, free: Collection[str]) -> None:
    """A ValueError that lists the settings, but for those in `free`, in which the run to resume differs."""
    now, saved, ignored = flat(settings), read_settings(path), dict.fromkeys(free)
    if different := differences(now | ignored, saved | ignored):
        raise ValueError(f"--resume: the run in {path.parent} has other settings: {different}")


def check_epochs(folder: Path, epochs: int) -> None:
    """A ValueError where the run to resume has more epochs behind it than are asked for."""
    checkpoints = folder.glob("**/checkpoints/last.ckpt")
    done = max((len(read_checkpoint(last)["history"]) for last in checkpoints), default=0)
    if epochs < done:
        raise ValueError(f"--epochs {epochs}: the run in {folder} has {done} behind it; ask for that or more")


def load_run(folder: Path) -> Objective:
    """The objective that a script trained, with the weights of its best epoch."""
    settings = read_json(folder / "settings.json")
    objective = PAPERS[settings["paper"]].build(**settings["build"])
    load_weights(objective, folder / "checkpoints" / "best.ckpt")
    return objective.eval()
