"""`fit`: training of any objective on any batches, with Lightning underneath.

The whole of it, without the comforts, is the loop that every course teaches:

    optimizer = torch.optim.Adam(objective.parameters(), lr=3e-4)
    for epoch in range(epochs):
        for x_labelled, y_labelled, x_unlabelled in batches:
            optimizer.zero_grad()
            objective(x_labelled, y_labelled, x_unlabelled)["loss"].backward()
            optimizer.step()
"""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Iterable, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from .checkpoint import check_settings, check_weights, load_weights, objective_state, read_checkpoint
from .checks import check_rows
from .objective import Objective

if TYPE_CHECKING:
    from .training import Training

Batch = tuple[Tensor | None, Tensor | None, Tensor | None]
DEVICES = {"auto": "auto", "cpu": "cpu", "cuda": "gpu", "mps": "mps"}
PRECISIONS = {"32": None, "bf16": torch.bfloat16}


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
    loggers: Sequence[Any] = (),
    callbacks: Sequence[Any] = (),
) -> list[dict[str, float]]:
    """Minimises `objective(...)["loss"]` and returns the history, one row of numbers per epoch.

    A row holds `epoch` (from 1), `loss`, the objective's terms (means over the epoch, nats per data point),
    `validation_…` of each term and `validation_accuracy`, `learning_rate`, `kl_weight` and `seconds`. Terms are as the
    objective computes them in training, under the current `kl_weight`; validation terms have `kl_weight` 1 and the
    same random numbers in every epoch.

    Args:
        objective: what to minimise; its parameters are trained in place, and it is left in evaluation mode.
        batches: an iterable of `(x_labelled, y_labelled, x_unlabelled)`, gone through once an epoch.
        epochs: how many passes in all; a resumed run counts those that it has behind it.
        validation: `(x, y)`, y integer with -1 for unlabelled, or None where there are no labels.
        validation_bound_x: the rows on which validation *bounds* are computed, where they differ from validation's x:
            images that were binarised once, while the classifier sees them in grey.
        learning_rate: of the optimiser, at the start.
        schedule: epoch (from 0) → factor of the learning rate.
        weight_decay: λ in λ/2 Σ w² over all matrices, added to the loss; 1/N is a N(0, 1) prior on the weights. The
            reported loss and bounds are without it.
        kl_warmup: epochs over which `objective.kl_weight` rises linearly to the value that it has now.
        gradient_clip_norm: the largest norm of the whole gradient.
        gradient_clip_value: the largest absolute value of a gradient's element, after the norm.
        optimizer: `optimizer(parameter_groups, lr=...)`.
        monitor: the validation metric that makes a checkpoint the best, larger is better: "accuracy" or a term.
            None: "accuracy" where there are labels and a classifier, else "unlabelled".
        patience: stop after this many epochs without a new best.
        restore_best: leave the objective with the best epoch's weights, not the last's.
        out: a folder for `metrics.csv`, `checkpoints/last.ckpt` and `checkpoints/best.ckpt` (with validation).
        resume: go on from `out`'s last checkpoint, to the numbers that a run without a break would have given; from
            the start where the first epoch was not finished.
        device: "auto", "cpu", "cuda" or "mps".
        devices: how many devices or processes; each takes its share of every batch.
        strategy: Lightning's, such as "ddp" or "ddp_spawn".
        precision: "32", or "bf16": the networks compute in bfloat16, densities and bounds in 32 bits.
        progress: a progress bar; None for one where there is a terminal or a notebook.
        loggers: Lightning's loggers, which receive every row.
        callbacks: further Lightning callbacks.

    Raises:
        ValueError: a setting out of range, an unknown device, precision or monitor, an `out` that holds another run's
            files, or a checkpoint that is cut off, no checkpoint, or made with other settings (they are listed).
        FloatingPointError: a loss or gradient that is NaN or infinite; it names the epoch, the step and the term, and
            the last checkpoint stays as it was.
    """
    _check(epochs, learning_rate, weight_decay, kl_warmup, gradient_clip_norm, gradient_clip_value, patience)
    accelerator = _accelerator(device)
    dtype = _choice("precision", precision, PRECISIONS)
    monitor = _monitor(objective, validation, validation_bound_x, monitor, patience, restore_best)

    from .training import Loader, Training, quiet, trainer_for  # Lightning takes seconds to import

    settings = {
        "learning_rate": learning_rate,
        "weight_decay": weight_decay,
        "kl_warmup": kl_warmup,
        "gradient_clip_norm": gradient_clip_norm,
        "gradient_clip_value": gradient_clip_value,
        "optimizer": getattr(optimizer, "__name__", type(optimizer).__name__),
        "precision": precision,
        "monitor": monitor,
        **_plain(objective, "objective"),
        **_plain(batches, "batches"),
    }
    with ExitStack() as stack:
        folder = _folder(out, resume, keep=restore_best or devices not in (1, "1"), stack=stack)
        checkpoint = _to_resume(objective, settings, folder) if resume and folder else None
        training = Training(
            objective, batches, epochs=epochs, validation=validation, validation_bound_x=validation_bound_x,
            learning_rate=learning_rate, schedule=schedule, weight_decay=weight_decay, kl_warmup=kl_warmup,
            gradient_clip_norm=gradient_clip_norm, gradient_clip_value=gradient_clip_value, optimizer=optimizer,
            settings=settings, metrics_file=Path(out) / "metrics.csv" if out is not None else None,
        )  # fmt: skip
        stack.enter_context(quiet())
        trainer = trainer_for(
            training, folder, monitor=monitor, patience=patience, progress=progress, accelerator=accelerator,
            devices=devices, strategy=strategy, loggers=loggers, callbacks=callbacks,
        )  # fmt: skip
        stack.enter_context(training.settings_restored(dtype))
        trainer.fit(training, Loader(batches), ckpt_path=checkpoint, weights_only=True if checkpoint else None)
        return _finish(training, objective, folder, restore_best)


def _finish(
    training: Training, objective: Objective, folder: Path | None, restore_best: bool
) -> list[dict[str, float]]:
    """The history (which forked processes leave in the checkpoint only), after the last touches."""
    history = training.history
    if folder and (folder / "last.ckpt").exists():
        history = read_checkpoint(folder / "last.ckpt")["history"]
    if not history:
        raise ValueError("batches gave no batch")
    if restore_best and folder:
        load_weights(objective, folder / "best.ckpt")
    objective.eval()
    return history


def _folder(out: str | Path | None, resume: bool, *, keep: bool, stack: ExitStack) -> Path | None:
    """Where the checkpoints go: below `out`, a temporary folder where they are needed all the same, or nowhere."""
    if out is None:
        if resume:
            raise ValueError("resume=True needs out=, the folder of the run to go on with")
        return Path(stack.enter_context(tempfile.TemporaryDirectory())) if keep else None
    used = [name for name in ("metrics.csv", "checkpoints") if (Path(out) / name).exists()]
    if used and not resume:
        raise ValueError(f"{out} holds another run's {' and '.join(used)}; pass resume=True or choose another folder")
    return Path(out) / "checkpoints"


def _to_resume(objective: Objective, settings: dict[str, Any], folder: Path) -> Path | None:
    """The last checkpoint, once it is known to be whole and of this run; None before the first epoch's end."""
    path = folder / "last.ckpt"
    if not path.exists():
        return None
    checkpoint = read_checkpoint(path)
    check_settings(settings, checkpoint["fit_settings"], path)
    check_weights(objective, objective_state(checkpoint), path)
    return path


def _plain(thing: object, name: str) -> dict[str, Any]:
    """The public attributes that are plain values, to compare a checkpoint's with this run's."""
    values = {
        "": type(thing).__name__,
        **{k: v for k, v in getattr(thing, "__dict__", {}).items() if isinstance(v, int | float | str)},
    }
    hidden = ("_", "training")
    return {f"{name}.{k}".rstrip("."): v for k, v in values.items() if not k.startswith(hidden)}


def _monitor(
    objective: Objective,
    validation: tuple[Tensor, Tensor | None] | None,
    bound_x: Tensor | None,
    monitor: str | None,
    patience: int | None,
    restore_best: bool,
) -> str | None:
    """The name of the metric that says which epoch is best; None without validation data."""
    if validation is None:
        if monitor or patience or restore_best or bound_x is not None:
            raise ValueError("monitor, patience, restore_best and validation_bound_x need validation=(x, y)")
        return None
    x, y = validation
    check_rows(x, "validation's x")
    if y is not None and (y.shape != (len(x),) or y.is_floating_point()):
        raise ValueError(f"validation's y must be {len(x)} integer labels, got shape {tuple(y.shape)} of {y.dtype}")
    if bound_x is not None and bound_x.shape != x.shape:
        raise ValueError(f"validation_bound_x must have shape {tuple(x.shape)}, got {tuple(bound_x.shape)}")
    labelled = y is not None and bool((y >= 0).any())
    if monitor == "accuracy" and not (labelled and hasattr(objective.guide, "classify")):
        raise ValueError("monitor='accuracy' needs validation labels and a guide with classify")
    best = "accuracy" if labelled and hasattr(objective.guide, "classify") else "unlabelled"
    return f"validation_{monitor or best}"


def _accelerator(device: str) -> str:
    accelerator = _choice("device", device, DEVICES)
    present: dict[str, Callable[[], bool]] = {"cuda": torch.cuda.is_available, "mps": torch.backends.mps.is_available}
    if device in present and not present[device]():
        raise ValueError(f"device {device!r} is not available on this machine; choose 'cpu' or 'auto'")
    return accelerator


def _choice(name: str, value: str, table: dict[str, Any]) -> Any:
    if value not in table:
        raise ValueError(f"{name} must be one of {', '.join(table)}, got {value!r}")
    return table[value]


def _check(
    epochs: int,
    learning_rate: float,
    weight_decay: float,
    kl_warmup: int,
    gradient_clip_norm: float | None,
    gradient_clip_value: float | None,
    patience: int | None,
) -> None:
    """A ValueError that names the first setting out of range."""
    for name, number, least in (("epochs", epochs, 1), ("kl_warmup", kl_warmup, 0), ("patience", patience, 1)):
        if number is not None and (not isinstance(number, int) or number < least):
            raise ValueError(f"{name} must be an integer of at least {least}, got {number!r}")
    positive = {
        "learning_rate": learning_rate,
        "gradient_clip_norm": gradient_clip_norm,
        "gradient_clip_value": gradient_clip_value,
    }
    for name, value in positive.items():
        if value is not None and not value > 0:
            raise ValueError(f"{name} must be positive, got {value!r}")
    if not weight_decay >= 0:
        raise ValueError(f"weight_decay must not be negative, got {weight_decay!r}")
