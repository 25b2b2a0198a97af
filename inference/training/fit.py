"""`fit`: training of any objective on any batches, with Lightning underneath.

In its essence it is the loop that every course teaches:

    optimizer = torch.optim.Adam(objective.parameters(), lr=3e-4)
    for epoch in range(epochs):
        for x_labelled, y_labelled, x_unlabelled in batches:
            optimizer.zero_grad()
            objective(x_labelled, y_labelled, x_unlabelled)["loss"].backward()
            optimizer.step()
"""

from __future__ import annotations

import os
import tempfile
import warnings
from collections.abc import Callable, Iterable, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from ...files import hold
from ...modules import module_tensor
from ...threads import ONE_AT_A_TIME
from ..evaluation.measures import check_validation, evaluate
from ..objectives import Objective
from .checkpoint import check_settings, check_weights, load_weights, objective_state, read_checkpoint
from .run import Batch, Row, Run, Settings

if TYPE_CHECKING:
    from .loop import Training

LOCK = ".fit.lock"  # its name in the folder of a run


def fit(
    objective: Objective,
    batches: Iterable[Batch],
    *,
    epochs: int,
    validation: tuple[Tensor, Tensor | None] | None = None,
    validation_bound_x: Tensor | None = None,
    learning_rate: float = 3e-4,
    schedule: Callable[[int], float] | None = None,
    weight_decay: float = 0.0,
    kl_warmup: int = 0,
    gradient_clip_norm: float | None = None,
    gradient_clip_value: float | None = None,
    optimizer: Callable[..., torch.optim.Optimizer] = torch.optim.Adam,
    monitor: str | None = None,
    patience: int | None = None,
    restore_best: bool = False,
    out: str | Path | None = None,
    resume: bool = False,
    device: str = "auto",
    devices: int | str = 1,
    strategy: str = "auto",
    precision: str = "32",
    progress: bool | None = None,
    report: Callable[[Row], None] | None = None,
    loggers: Sequence[Any] = (),
    callbacks: Sequence[Any] = (),
) -> list[Row]:
    """Minimises `objective(...)["loss"]` and returns the history, one row of numbers per epoch.

    A row holds `epoch` (from 1), `loss`, the objective's terms (means over the epoch, nats per data point),
    `validation_…` of each term and `validation_accuracy`, `learning_rate`, `kl_weight` and `seconds`. Terms are as the
    objective computes them in training, under the current `kl_weight`; validation terms have `kl_weight` 1 and the
    same random numbers in every epoch.

    Threads of a process take turns, since Pyro's handlers and PyTorch's random numbers belong to the process. The
    folder `out` belongs to this call until it returns; a killed process leaves it free.

    The first call in a process imports Lightning. That sets the environment variables `PYTORCH_NVML_BASED_CUDA_CHECK`
    and `TORCHINDUCTOR_CACHE_DIR`, and gives the loggers `lightning`, `lightning.pytorch`, `lightning.fabric` and
    `torchmetrics` a level and a handler; PyTorch's random state moves on. Warning filters, signals, hooks, threads,
    the other loggers, other random states, and the defaults of PyTorch, Pyro and NumPy stay as they are.

    Args:
        objective: what to minimise; its parameters are trained in place, and it is left in evaluation mode.
        batches: an iterable of `(x_labelled, y_labelled, x_unlabelled)`, gone through once an epoch. Noise that it
            draws from PyTorch's own generator, as a shuffling DataLoader does, is the same in a resumed run.
        epochs: how many passes in all; a resumed run counts those that it has behind it.
        validation: `(x, y)`, y integer with -1 for unlabelled, or None where there are no labels.
        validation_bound_x: the rows on which validation *bounds* are computed, where they differ from validation's x:
            images that were binarised once, while the classifier sees them in grey.
        learning_rate: of the optimiser, at the start.
        schedule: epoch (from 0) → factor of the learning rate, such as `linear_decay(epochs)`.
        weight_decay: the optimiser's own, on matrices only. Adam's is λ in λ/2 Σ w², added to the loss: 1/N is a
            N(0, 1) prior on the weights. The reported loss and bounds are without it.
        kl_warmup: epochs over which `objective.kl_weight` rises linearly to the value that it has now.
        gradient_clip_norm: the largest norm of the whole gradient.
        gradient_clip_value: the largest absolute value of a gradient's element, after the norm.
        optimizer: `optimizer(parameter_groups, lr=...)`.
        monitor: the validation metric that makes a checkpoint the best, larger is better: "accuracy" or a term.
            None: "accuracy" where there are labels and a classifier, else "unlabelled".
        patience: stop after this many epochs without a new best.
        restore_best: leave the objective with the best epoch's weights, not the last's.
        out: a folder for `metrics.csv`, `checkpoints/last.ckpt` and `checkpoints/best.ckpt` (with validation).
        resume: go on from the last checkpoint in the folder `out`, to the numbers that a run without a break would
            have given; from the start where the first epoch was not finished. Settings must be the same, and are
            compared, but for `schedule`, which cannot be.
        device: "auto", "cpu", "cuda" or "mps".
        devices: how many devices or processes; each takes its share of every batch. More than one need `out`.
        strategy: Lightning's, such as "ddp" or "ddp_spawn".
        precision: "32", or "bf16": the networks compute in bfloat16, densities and bounds in 32 bits. "auto": "bf16"
            where the device multiplies it in hardware, else "32".
        progress: a progress bar; None for one where there is a terminal or a notebook.
        report: called with each epoch's row, in the main process.
        loggers: Lightning's loggers, which receive every row.
        callbacks: further Lightning callbacks.

    Raises:
        ValueError: a setting out of range, an unknown device, precision or monitor, an `out` that holds another run's
            files or in which another process is at work, or a checkpoint that is damaged, no checkpoint, or made with
            other settings (they are listed).
        OSError: a file cannot be written, such as where the disk is full; the last checkpoint stays as it was.
        KeyboardInterrupt: Ctrl-C; `resume` goes on from the last whole epoch.
        FloatingPointError: a loss or gradient that is NaN or infinite; it names the epoch, the step and the term, and
            the last checkpoint stays as it was.

    Warns:
        UserWarning: the training ends before the warm-up does, with a `kl_weight` below its full value.
    """
    settings = Settings(
        epochs=epochs, learning_rate=learning_rate, weight_decay=weight_decay, kl_warmup=kl_warmup,
        gradient_clip_norm=gradient_clip_norm, gradient_clip_value=gradient_clip_value, patience=patience,
        device=device, precision=precision,
    )  # fmt: skip
    if kl_warmup > epochs:
        _warn_of_warmup(epochs, kl_warmup)
    with ONE_AT_A_TIME, ExitStack() as stack:
        monitor = _rehearse(objective, validation, validation_bound_x, monitor, needed=bool(patience or restore_best))
        folder = _folder(out, resume, alone=str(devices) == "1", keep=restore_best, stack=stack)
        run = Run(
            objective=objective, batches=batches, settings=settings, optimizer=optimizer, schedule=schedule,
            validation=validation, validation_bound_x=validation_bound_x, monitor=monitor, folder=folder,
            metrics_file=None if out is None else Path(out) / "metrics.csv", report=report,
        )  # fmt: skip
        compared = run.compared()
        if out is not None:
            _claim(Path(out), resume, stack)
        checkpoint = _to_resume(run, compared) if resume else None

        from .loop import Training, train  # Lightning takes seconds to import

        training = Training(run, compared)
        if checkpoint is None or not training.is_over(checkpoint["history"]):
            train(
                training, checkpoint=folder / "last.ckpt" if folder and checkpoint else None, progress=progress,
                devices=devices, strategy=strategy, loggers=loggers, callbacks=callbacks,
            )  # fmt: skip
        history = _finish(training, restore_best)
        if len(history) < min(kl_warmup, epochs):
            _warn_of_warmup(len(history), kl_warmup)
        return history


def check_fit_settings(**settings: Any) -> None:
    """What `fit` asks of its settings, to be asked before anything else is done.

    Args:
        settings: keywords of `Settings`: `epochs`, `learning_rate`, `weight_decay`, `kl_warmup`, `gradient_clip_norm`,
            `gradient_clip_value`, `patience`, `device`, `precision`.

    Raises:
        ValueError: the first setting that is out of range or unknown, and what it may be.
    """
    Settings(**settings)


def _warn_of_warmup(epochs: int, kl_warmup: int) -> None:
    warnings.warn(
        f"training ends at epoch {epochs}, and its warm-up at epoch {kl_warmup} (kl_warmup={kl_warmup}): the last "
        f"epoch minimises {epochs / kl_warmup:.2g} of the KL; give more epochs, or a shorter warm-up",
        stacklevel=3,
    )


def _finish(training: Training, restore_best: bool) -> list[Row]:
    """Reads history and weights back from the checkpoint, the only place where forked processes leave them."""
    history, objective, folder = training.history, training.objective, training.run.folder
    if folder and (folder / "last.ckpt").exists():
        checkpoint = read_checkpoint(folder / "last.ckpt")
        history = checkpoint["history"]
        if restore_best:
            load_weights(objective, folder / "best.ckpt")
        else:
            objective.load_state_dict(objective_state(checkpoint))
    if not history:
        raise ValueError("batches gave no batch")
    objective.eval()
    return history


def _folder(out: str | Path | None, resume: bool, *, alone: bool, keep: bool, stack: ExitStack) -> Path | None:
    """The folder of the checkpoints: in `out`, a temporary one where `restore_best` needs it, or None."""
    if out is None:
        if resume or not alone:
            raise ValueError("resume=True and devices other than 1 need out=, the folder of the run")
        return Path(stack.enter_context(tempfile.TemporaryDirectory())) if keep else None
    if Path(out).exists() != Path(out).is_dir() or (resume and not Path(out).exists()):
        raise ValueError(f"out must be {'the folder of the run to resume' if resume else 'a folder'}, got {out}")
    return Path(out) / "checkpoints"


def _claim(out: Path, resume: bool, stack: ExitStack) -> None:
    """Holds the folder, refuses another run's files in it, and removes what a killed process had half written."""
    _check_unused(out, resume)
    if _is_the_first():
        stack.enter_context(hold(out, LOCK))
    _check_unused(out, resume)  # again, of what no other process changes now
    for unfinished in (*out.glob(".metrics.csv.*.partial"), *out.glob("checkpoints/.*.partial")):
        unfinished.unlink()


def _check_unused(out: Path, resume: bool) -> None:
    used = [name for name in ("metrics.csv", "checkpoints") if (out / name).exists()]
    if used and not resume:
        raise ValueError(f"{out} holds another run's {' and '.join(used)}; pass resume=True or choose another folder")


def _is_the_first() -> bool:
    """Whether this process is the first of its run, by what Lightning, torchrun and SLURM tell theirs."""
    return all(os.environ.get(name, "0") == "0" for name in ("RANK", "LOCAL_RANK", "SLURM_PROCID"))


def _to_resume(run: Run, compared: dict[str, Any]) -> dict[str, Any] | None:
    """The last checkpoint, checked to be whole and of this run; None where the first epoch was not finished."""
    path, epochs = Path(run.folder or "") / "last.ckpt", run.settings.epochs
    if not path.exists():
        return None
    checkpoint = read_checkpoint(path)
    check_settings(compared, checkpoint, path)
    check_weights(run.objective, objective_state(checkpoint), path)
    if len(checkpoint["history"]) > epochs:
        raise ValueError(f"{path} has {len(checkpoint['history'])} epochs behind it, more than epochs={epochs}")
    return checkpoint


def _rehearse(
    objective: Objective,
    validation: tuple[Tensor, Tensor | None] | None,
    bound_x: Tensor | None,
    monitor: str | None,
    *,
    needed: bool,
) -> str | None:
    """Evaluates two rows of the validation data, so that an error in them is raised before the first epoch.

    Returns:
        The name of the metric that says which epoch is best; None without validation data.
    """
    if validation is None:
        if needed or monitor or bound_x is not None:
            raise ValueError("monitor, patience, restore_best and validation_bound_x need validation=(x, y)")
        return None
    x, y = validation
    check_validation(x, y, bound_x)
    rows = torch.tensor([0] if y is None else [0, int((y >= 0).int().argmax())], device=x.device)
    device = module_tensor(objective).device
    with torch.random.fork_rng(devices=[device] if device.type == "cuda" else []):
        known = evaluate(
            objective, x[rows], None if y is None else y.to(x.device)[rows],
            bound_x=None if bound_x is None else bound_x[rows.to(bound_x.device)],
        )  # fmt: skip
    monitor = monitor or ("accuracy" if "accuracy" in known else "unlabelled")
    if monitor not in known:
        raise ValueError(f"monitor must be one of {', '.join(known)}, got {monitor!r}")
    return f"validation_{monitor}"
