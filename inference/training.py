"""The Lightning side of `fit`. Nothing else imports this module, since Lightning takes seconds to import."""

from __future__ import annotations

import csv
import logging
import sys
import time
import warnings
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch

from ..compat import mend_torchvision

mend_torchvision()  # before Lightning, which imports it

from lightning.pytorch import Callback, LightningModule, Trainer
from lightning.pytorch.callbacks import EarlyStopping, ModelCheckpoint
from lightning.pytorch.plugins import TorchCheckpointIO
from torch import Tensor
from torch.nn.utils import clip_grads_with_norm_, get_total_norm
from tqdm.auto import tqdm

from ..distributions import MLP
from ..files import write_whole
from .evaluation import evaluate
from .objective import Objective

Row = dict[str, float]


class Training(LightningModule):
    """One run of `fit`; the arguments are explained there."""

    def __init__(
        self,
        objective: Objective,
        batches: Iterable[Any],
        *,
        epochs: int,
        validation: tuple[Tensor, Tensor | None] | None,
        validation_bound_x: Tensor | None,
        learning_rate: float,
        schedule: Callable[[int], float] | None,
        weight_decay: float,
        kl_warmup: int,
        gradient_clip_norm: float | None,
        gradient_clip_value: float | None,
        optimizer: Callable[..., torch.optim.Optimizer],
        settings: dict[str, Any],
        metrics_file: Path | None,
    ) -> None:
        super().__init__()
        self.objective = objective
        self.batches = batches
        self.epochs = epochs
        self.validation = validation
        self.validation_bound_x = validation_bound_x
        self.learning_rate = learning_rate
        self.schedule = schedule
        self.weight_decay = weight_decay
        self.kl_warmup = kl_warmup
        self.kl_target = objective.kl_weight.item()
        self.gradient_clip_norm = gradient_clip_norm
        self.gradient_clip_value = gradient_clip_value
        self.make_optimizer = optimizer
        self.settings = settings
        self.metrics_file = metrics_file
        self.history: list[Row] = []
        self.seed = int(torch.randint(2**31, ()).item())

    @contextmanager
    def settings_restored(self, dtype: torch.dtype | None) -> Iterator[None]:
        """Networks compute in `dtype` inside; outside, they and `kl_weight` are as they were."""
        networks = [module for module in self.objective.modules() if isinstance(module, MLP)]
        before = [network.autocast_dtype for network in networks]
        try:
            for network in networks:
                network.autocast_dtype = dtype
            yield
        finally:
            self.objective.kl_weight.fill_(self.kl_target)
            for network, previous in zip(networks, before, strict=True):
                network.autocast_dtype = previous

    def configure_optimizers(self) -> torch.optim.Optimizer:
        """Weight decay on matrices, none on biases."""
        parameters = [p for p in self.objective.parameters() if p.requires_grad]
        matrices = {"params": [p for p in parameters if p.ndim > 1], "weight_decay": self.weight_decay}
        others = {"params": [p for p in parameters if p.ndim <= 1], "weight_decay": 0.0}
        return self.make_optimizer([matrices, others], lr=self.learning_rate)

    def on_train_epoch_start(self) -> None:
        """Everything that changes with the epoch depends on its number alone, so that a resumed run sees the same."""
        epoch = self.current_epoch
        self.rate = self.learning_rate * (self.schedule(epoch) if self.schedule else 1.0)
        for group in self.optimizers().param_groups:  # type: ignore[union-attr] # there is one optimiser
            group["lr"] = self.rate
        warm = min(1.0, (epoch + 1) / self.kl_warmup) if self.kl_warmup else 1.0
        self.objective.kl_weight.fill_(self.kl_target * warm)
        self.sums: dict[str, Tensor] = {}
        self.rows = 0
        self.start = time.perf_counter()
        torch.manual_seed(self.seed + 7919 * epoch + 104729 * self.global_rank)

    def training_step(self, batch: tuple[Tensor | None, ...], step: int) -> Tensor:
        """The loss of this process' share of the batch; terms are summed, not yet looked at."""
        x_labelled, y_labelled, x_unlabelled = (self._share(rows) for rows in batch)
        terms = self.objective(x_labelled, y_labelled, x_unlabelled)
        if not torch.isfinite(terms["loss"]):
            bad = [name for name, term in terms.items() if not torch.isfinite(term)]
            raise FloatingPointError(self._broken(step, f"{' and '.join(bad)} is NaN or infinite"))
        rows = len(x_unlabelled if x_unlabelled is not None else x_labelled)  # type: ignore[arg-type] # one is there
        for name, term in terms.items():
            self.sums[name] = self.sums.get(name, 0.0) + rows * term.detach()
        self.rows += rows
        self.step = step
        return terms["loss"]

    def on_before_optimizer_step(self, optimizer: torch.optim.Optimizer) -> None:
        """Refuses a gradient that is not finite, then clips it: first the whole norm, then each element."""
        parameters = [p for p in self.objective.parameters() if p.grad is not None]
        norm = get_total_norm([p.grad for p in parameters if p.grad is not None])
        if not torch.isfinite(norm):
            raise FloatingPointError(self._broken(self.step, "the gradient of loss is NaN or infinite"))
        if self.gradient_clip_norm is not None:
            clip_grads_with_norm_(parameters, self.gradient_clip_norm, norm)
        if self.gradient_clip_value is not None:
            torch.nn.utils.clip_grad_value_(parameters, self.gradient_clip_value)

    def on_train_epoch_end(self) -> None:
        """Adds the epoch's row to the history, and tells it to Lightning's callbacks and loggers."""
        row: Row = {"epoch": self.current_epoch + 1, **self._means()}
        if self.validation is not None:
            torch.manual_seed(self.seed)
            row |= self._validate(*self.validation)
            self._check_monitor(row)
        row |= {"learning_rate": self.rate, "kl_weight": self.objective.kl_weight.item()}
        row["seconds"] = time.perf_counter() - self.start
        self.history.append(row)
        self.log_dict({name: torch.tensor(value) for name, value in row.items() if name != "epoch"})
        if self.metrics_file is not None and self.trainer.is_global_zero:
            write_metrics(self.history, self.metrics_file)

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Adds what a resumed run needs to see the same numbers."""
        state = self.batches.state_dict() if hasattr(self.batches, "state_dict") else None
        checkpoint |= {"fit_settings": self.settings, "history": self.history, "seed": self.seed, "batches": state}

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Takes it back."""
        self.history, self.seed = checkpoint["history"], checkpoint["seed"]
        if checkpoint["batches"] is not None and hasattr(self.batches, "load_state_dict"):
            self.batches.load_state_dict(checkpoint["batches"])

    def _validate(self, x: Tensor, y: Tensor | None) -> Row:
        """`validation_…` of what `evaluate` measures, with `kl_weight` 1."""
        weight = self.objective.kl_weight.item()
        self.objective.kl_weight.fill_(1.0)
        measured = evaluate(self.objective, x, y, bound_x=self.validation_bound_x)
        self.objective.kl_weight.fill_(weight)
        self.objective.train()
        return {f"validation_{name}": value for name, value in measured.items()}

    def _check_monitor(self, row: Row) -> None:
        monitor = self.settings["monitor"]
        if monitor not in row:
            known = [name.removeprefix("validation_") for name in row if name.startswith("validation_")]
            raise ValueError(f"monitor must be one of {', '.join(known)}, got {monitor.removeprefix('validation_')!r}")

    def _share(self, rows: Tensor | None) -> Tensor | None:
        """Every world_size-th row, wrapping around so that each process has as many."""
        size = self.trainer.world_size
        if rows is None or size == 1:
            return rows
        each = -(-len(rows) // size)
        return rows[(torch.arange(each, device=rows.device) * size + self.global_rank) % len(rows)]

    def _means(self) -> Row:
        """The epoch's mean of each term over all rows and processes."""
        if not self.sums:
            raise ValueError("batches gave no batch")
        return {name: self._mean(total / self.rows) for name, total in self.sums.items()}

    def _mean(self, value: Tensor) -> float:
        return float(self.trainer.strategy.reduce(value, reduce_op="mean"))

    def _broken(self, step: int, what: str) -> str:
        return (
            f"epoch {self.current_epoch + 1}, step {step + 1}: {what}. The last checkpoint, if any, is from the epoch "
            "before. A lower learning_rate, gradient_clip_norm or kl_warmup may help."
        )


class Loader:
    """Any iterable of batches, as one thing: Lightning would take a list of batches for a list of loaders."""

    def __init__(self, batches: Iterable[Any]) -> None:
        self.batches = batches

    def __iter__(self) -> Iterator[Any]:
        """One pass."""
        return iter(self.batches)

    def __len__(self) -> int:
        """The batches in a pass; a TypeError, which Lightning expects, where nobody knows."""
        return len(self.batches)  # type: ignore[arg-type]


class Atomic(TorchCheckpointIO):
    """Writes a checkpoint whole or not at all."""

    def save_checkpoint(self, checkpoint: dict[str, Any], path: Any, storage_options: Any = None) -> None:
        """Into a file beside it, which then takes its name."""
        write_whole(path, lambda temporary: torch.save(checkpoint, temporary))


class Bar(Callback):
    """One bar for the whole run, in steps, with the last epoch's numbers behind it."""

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Opens the bar where the run stands."""
        steps = trainer.num_training_batches
        known = steps != float("inf")
        total = int(steps) * (trainer.max_epochs or 0) if known else None
        self.bar = tqdm(total=total, initial=trainer.global_step, unit="step", dynamic_ncols=True)

    def on_train_epoch_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Says which epoch."""
        self._show_last_row(pl_module)
        self.bar.set_description(f"epoch {trainer.current_epoch + 1}/{trainer.max_epochs}", refresh=False)

    def on_train_batch_end(self, *_: object) -> None:
        """One step on."""
        self.bar.update()

    def on_train_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Ends with the last epoch's numbers."""
        self._show_last_row(pl_module)

    def _show_last_row(self, training: Any) -> None:
        row = training.history[-1] if training.history else {}
        shown = ("loss", "validation_unlabelled", "validation_accuracy")
        self.bar.set_postfix({name: f"{row[name]:.4g}" for name in shown if name in row}, refresh=False)

    def teardown(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Closes the bar, also after an error."""
        if hasattr(self, "bar"):
            self.bar.close()


def trainer_for(
    training: Training,
    folder: Path | None,
    *,
    monitor: str | None,
    patience: int | None,
    progress: bool | None,
    accelerator: str,
    devices: int | str,
    strategy: str,
    loggers: Sequence[Any],
    callbacks: Sequence[Any],
) -> Trainer:
    """Lightning's trainer with the callbacks that the settings ask for, and nothing that talks."""
    return Trainer(
        accelerator=accelerator,
        devices=devices,
        strategy=strategy,
        max_epochs=training.epochs,
        logger=list(loggers) or False,
        callbacks=[*callbacks, *_bars(progress), *_stoppers(monitor, patience), *_savers(folder, monitor)],
        plugins=[Atomic()],
        default_root_dir=folder,
        enable_checkpointing=folder is not None,
        enable_progress_bar=False,
        enable_model_summary=False,
        num_sanity_val_steps=0,
        use_distributed_sampler=False,
    )


def _bars(progress: bool | None) -> list[Callback]:
    """Where nobody said: a bar in a terminal and in a notebook."""
    if progress is None:
        progress = sys.stderr.isatty() or "ipykernel" in sys.modules
    return [Bar()] if progress else []


def _stoppers(monitor: str | None, patience: int | None) -> list[Callback]:
    if monitor is None or patience is None:
        return []
    return [EarlyStopping(monitor, mode="max", patience=patience, check_on_train_epoch_end=True, check_finite=False)]


def _savers(folder: Path | None, monitor: str | None) -> list[Callback]:
    """The best epoch's checkpoint and then the last's, so that the last knows of the best."""
    if folder is None:
        return []
    common: dict[str, Any] = {
        "dirpath": folder, "save_on_train_epoch_end": True, "enable_version_counter": False,
    }  # fmt: skip
    best = [ModelCheckpoint(filename="best", monitor=monitor, mode="max", **common)] if monitor else []
    return [*best, ModelCheckpoint(filename="last", **common)]


def write_metrics(history: Sequence[Row], path: Path) -> None:
    """The history as a CSV file, a row an epoch."""
    names = list(dict.fromkeys(name for row in history for name in row))

    def write(temporary: Path) -> None:
        with temporary.open("w", newline="") as file:
            writer = csv.DictWriter(file, names)
            writer.writeheader()
            writer.writerows(history)

    write_whole(path, write)


@contextmanager
def quiet() -> Iterator[None]:
    """Silences Lightning's own remarks on hardware, folders and tips; its errors still come through."""
    loggers = [logging.getLogger(name) for name in ("lightning.pytorch", "lightning.fabric")]
    levels = [logger.level for logger in loggers]
    try:
        for logger in loggers:
            logger.setLevel(logging.ERROR)
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", module=r"lightning\.")
            yield
    finally:
        for logger, level in zip(loggers, levels, strict=True):
            logger.setLevel(level)
