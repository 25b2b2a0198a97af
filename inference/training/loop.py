"""The loop of `fit`, by Lightning. `fit` imports this module when it is called, since Lightning takes seconds."""

from __future__ import annotations

import csv
import logging
import signal
import sys
import threading
import time
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, nullcontext
from pathlib import Path
from typing import Any

import torch

from ...compat import mend_torchvision
from ...contract import Resumable

with warnings.catch_warnings():  # the imports add filters, which joblib would carry, with Lightning, into its workers
    mend_torchvision()  # before Lightning, which imports it
    from lightning.pytorch import Callback, LightningModule, Trainer
    from lightning.pytorch.plugins import TorchCheckpointIO
from torch import Tensor
from torch.nn.utils import clip_grads_with_norm_, get_total_norm
from tqdm.auto import tqdm

from ...distributions import MLP
from ...files import write_whole
from ...modules import module_tensor
from ..evaluation import evaluate
from ..objectives import Objective
from ..objectives.base import Terms
from ..objectives.checks import unchecked
from ..objectives.kl_weight import weighted_by
from .checkpoint import DIGEST, FORMAT, digest, save_whole
from .precision import network_precision
from .run import DEVICES, Row, Run

EPOCH_STEP, PROCESS_STEP = 7919, 104729  # primes: seeds of epochs and processes that no small run repeats
DTYPES = {"32": None, "bf16": torch.bfloat16}
FUSED = ("cpu", "cuda")  # the devices on which `fit` trusts PyTorch's fused Adam


class Training(LightningModule):
    """A run of `fit`, as Lightning trains it; `compared` is what its checkpoints keep to be compared on resuming.

    What changes with the epoch depends on its number alone, and which epoch was best is read from the history, so
    that a checkpoint needs little: weights, optimiser, history, the seed, and where the batches stand.
    """

    def __init__(self, run: Run, compared: dict[str, Any]) -> None:
        super().__init__()
        self.run, self.settings = run, run.settings
        self.objective = run.objective
        self.compared = compared
        self.kl_target = run.objective.kl_weight.item()
        self.history: list[Row] = []
        self.seed = int(torch.randint(2**31, ()).item())
        self.is_first_epoch = True

    def configure_optimizers(self) -> torch.optim.Optimizer:
        """Weight decay on matrices, none on biases; Adam in one loop over the weights, where PyTorch has one."""
        parameters = [p for p in self.objective.parameters() if p.requires_grad]
        matrices = {"params": [p for p in parameters if p.ndim > 1], "weight_decay": float(self.settings.weight_decay)}
        others = {"params": [p for p in parameters if p.ndim <= 1], "weight_decay": 0.0}
        fused = {"fused": True} if self.run.optimizer is torch.optim.Adam and self.device.type in FUSED else {}
        return self.run.optimizer([matrices, others], lr=float(self.settings.learning_rate), **fused)

    def on_fit_start(self) -> None:
        """Sets the precision of the networks, which are on their device by now."""
        dtype = DTYPES[network_precision(str(self.settings.precision), self.device)]
        for network in networks(self.objective):
            network.autocast_dtype = dtype

    def seed_epoch(self) -> None:
        """Seeds this process for the next epoch, which Lightning may not have counted yet when it asks for a batch."""
        torch.manual_seed(self.seed + EPOCH_STEP * len(self.history) + PROCESS_STEP * self.global_rank)

    def on_train_epoch_start(self) -> None:
        """The epoch's learning rate and `kl_weight`, and empty sums."""
        epoch, warmup = self.current_epoch, self.settings.kl_warmup
        self.rate = float(float(self.settings.learning_rate) * (self.run.schedule(epoch) if self.run.schedule else 1.0))
        for group in self.optimizers().param_groups:  # type: ignore[union-attr] # there is one optimiser
            group["lr"] = self.rate
        self.objective.kl_weight.fill_(self.kl_target * (min(1.0, (epoch + 1) / warmup) if warmup else 1.0))
        self.sums: dict[str, Tensor] = {}
        self.rows: dict[str, int] = {}
        self.start = time.perf_counter()

    def training_step(self, batch: tuple[Tensor | None, ...], step: int) -> Tensor:
        """The loss of this process' share of the batch; terms are summed as tensors, so that nothing waits for them."""
        self.step = step
        x_labelled, y_labelled, x_unlabelled = (self._share(rows) for rows in batch)
        terms = self._terms(x_labelled, y_labelled, x_unlabelled)
        rows = len(x_unlabelled if x_unlabelled is not None else x_labelled)  # type: ignore[arg-type] # one is there
        for name, term in terms.items():
            self.sums[name] = self.sums.get(name, 0.0) + rows * term.detach()
            self.rows[name] = self.rows.get(name, 0) + rows
        return terms["loss"]

    def _terms(self, *rows: Tensor | None) -> Terms:
        """The objective's terms, which are finite.

        Pyro checks sites and values in the first epoch of a run, in which each row is seen once. Later it does so where
        a loss is not finite, with the same random numbers, so that its error names the cause.
        """
        state = torch.get_rng_state()
        terms = self._computed(rows, checked=self.is_first_epoch)
        if torch.isfinite(terms["loss"]):
            return terms
        if not self.is_first_epoch:
            torch.set_rng_state(state)
            self._computed(rows, checked=True)
        bad = [name for name, term in terms.items() if not torch.isfinite(term)]
        raise self._broken(f"{' and '.join(bad)} is NaN or infinite")

    def _computed(self, rows: tuple[Tensor | None, ...], *, checked: bool) -> Terms:
        try:
            with nullcontext() if checked else unchecked():
                return self.objective(*rows)
        except FloatingPointError as error:
            raise self._broken(str(error)) from error

    def on_before_optimizer_step(self, optimizer: torch.optim.Optimizer) -> None:
        """Refuses a gradient that is not finite, then clips it: first the whole norm, then each element."""
        parameters = [p for p in self.objective.parameters() if p.grad is not None]
        gradients = [p.grad for p in parameters if p.grad is not None]
        if not torch.isfinite(torch.stack([gradient.sum() for gradient in gradients]).sum()):
            raise self._broken("the gradient of loss is NaN or infinite")
        if self.settings.gradient_clip_norm is not None:
            norm = get_total_norm(gradients)
            clip_grads_with_norm_(parameters, float(self.settings.gradient_clip_norm), norm)
        if self.settings.gradient_clip_value is not None:
            torch.nn.utils.clip_grad_value_(parameters, float(self.settings.gradient_clip_value))

    def on_train_epoch_end(self) -> None:
        """Adds the epoch's row to the history, logs and writes it, and saves a checkpoint."""
        self.is_first_epoch = False
        row: Row = {"epoch": self.current_epoch + 1, **self._means()}
        if self.run.validation is not None:
            row |= self._validate(*self.run.validation)
        row |= {"learning_rate": self.rate, "kl_weight": self.objective.kl_weight.item()}
        row["seconds"] = time.perf_counter() - self.start
        self.history.append(row)
        self.log_dict({name: torch.tensor(value) for name, value in row.items() if name != "epoch"})
        if self.run.metrics_file is not None and self.trainer.is_global_zero:
            write_metrics(self.history, self.run.metrics_file)
        self._save()
        if self.run.report is not None and self.trainer.is_global_zero:
            self.run.report(row)
        self.trainer.should_stop = self.is_over(self.history)

    def is_over(self, history: Sequence[Row]) -> bool:
        """Whether nothing is left to do: all epochs are done, or `patience` of them brought no new best."""
        patience = self.settings.patience
        waited = len(history) - 1 - self._best(history) if history else 0
        return len(history) >= self.settings.epochs or (patience is not None and waited >= patience)

    def _best(self, history: Sequence[Row]) -> int:
        monitor = self.run.monitor
        return max(range(len(history)), key=lambda i: history[i][monitor]) if monitor else len(history) - 1

    def _save(self) -> None:
        if self.run.folder is None:
            return
        if self.run.monitor and self._best(self.history) == len(self.history) - 1:
            self.trainer.save_checkpoint(self.run.folder / "best.ckpt")
        self.trainer.save_checkpoint(self.run.folder / "last.ckpt")

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Adds what a resumed run needs to see the same numbers."""
        batches = self.run.batches
        state = batches.state_dict() if isinstance(batches, Resumable) else None
        checkpoint |= {
            "format": FORMAT,
            "fit_settings": self.compared,
            "history": self.history,
            "seed": self.seed,
            "batches": state,
        }
        checkpoint[DIGEST] = digest(checkpoint)  # Lightning asks for this last

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Restores the history, the seed and the place of the batches."""
        self.history, self.seed = checkpoint["history"], checkpoint["seed"]
        if checkpoint["batches"] is not None and isinstance(self.run.batches, Resumable):
            self.run.batches.load_state_dict(checkpoint["batches"])

    def _validate(self, x: Tensor, y: Tensor | None) -> Row:
        """`validation_…` of what `evaluate` measures, with `kl_weight` 1 and the same noise in every epoch."""
        torch.manual_seed(self.seed)
        try:
            with weighted_by(self.objective.kl_weight, 1.0):
                measured = evaluate(self.objective, x, y, bound_x=self.run.validation_bound_x)
        except FloatingPointError as error:
            raise self._broken(f"in validation, {error}") from error
        return {f"validation_{name}": value for name, value in measured.items()}

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
            raise ValueError("batches gave no batch; it must be something that can be gone through again every epoch")
        means = {name: total / self.rows[name] for name, total in self.sums.items()}
        return {name: float(self.trainer.strategy.reduce(mean, reduce_op="mean")) for name, mean in means.items()}

    def _broken(self, what: str) -> FloatingPointError:
        return FloatingPointError(
            f"epoch {self.current_epoch + 1}, step {self.step + 1}: {what}. The last checkpoint, if any, is from the "
            "epoch before. A lower learning rate, gradient clipping or a KL warm-up may help."
        )


class Loader:
    """One iterable of the batches, seeded where a pass begins; Lightning would take a list for a list of loaders."""

    def __init__(self, training: Training) -> None:
        self.training = training

    def __iter__(self) -> Iterator[Any]:
        """One pass over the batches."""
        self.training.seed_epoch()
        yield from self.training.run.batches

    def __len__(self) -> int:
        """The number of batches in a pass; a TypeError, which Lightning expects, where they have no length."""
        return len(self.training.run.batches)  # type: ignore[arg-type] # the TypeError is meant


class WholeFiles(TorchCheckpointIO):
    """Writes a checkpoint whole or not at all."""

    def save_checkpoint(self, checkpoint: dict[str, Any], path: Any, storage_options: Any = None) -> None:
        """Writes a file beside `path`, which then takes its name."""
        save_whole(checkpoint, path)


class Bar(Callback):
    """One bar for the whole run, in steps, with the last epoch's numbers behind it."""

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Opens the bar where the run stands."""
        steps = trainer.num_training_batches
        total = int(steps) * (trainer.max_epochs or 0) if steps != float("inf") else None
        alone = trainer.is_global_zero
        self.bar = tqdm(total=total, initial=trainer.global_step, unit="step", dynamic_ncols=True, disable=not alone)

    def on_train_epoch_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Names the epoch on the bar."""
        self._show_last_row(pl_module)
        self.bar.set_description(f"epoch {trainer.current_epoch + 1}/{trainer.max_epochs}", refresh=False)

    def on_train_batch_end(self, *_: object) -> None:
        """Moves the bar by one step."""
        self.bar.update()

    def on_train_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Ends with the last epoch's numbers."""
        self._show_last_row(pl_module)
        self.bar.close()

    def on_exception(self, trainer: Trainer, pl_module: LightningModule, exception: BaseException) -> None:
        """Closes the bar, also where the training ends with an error."""
        if hasattr(self, "bar"):
            self.bar.close()

    def _show_last_row(self, training: Any) -> None:
        row = training.history[-1] if training.history else {}
        shown = ("loss", "validation_unlabelled", "validation_accuracy")
        self.bar.set_postfix({name: f"{row[name]:.4g}" for name in shown if name in row}, refresh=False)


def train(
    training: Training,
    *,
    checkpoint: Path | None,
    progress: bool | None,
    devices: int | str,
    strategy: str,
    loggers: Sequence[Any],
    callbacks: Sequence[Any],
) -> None:
    """Trains, from the checkpoint if there is one; but for the weights, everything is afterwards as it was before."""
    if progress is None:
        progress = sys.stderr.isatty() or in_notebook()
    with quiet(), interruptible(), restored(training):
        trainer = Trainer(
            accelerator=DEVICES[training.settings.device],
            devices=devices,
            strategy=strategy,
            max_epochs=int(training.settings.epochs),
            logger=list(loggers) or False,
            callbacks=[*callbacks, *([Bar()] if progress else [])],
            plugins=[WholeFiles()],
            enable_checkpointing=False,
            enable_progress_bar=False,
            enable_model_summary=False,
            num_sanity_val_steps=0,
            use_distributed_sampler=False,
        )
        trainer.fit(training, Loader(training), ckpt_path=checkpoint, weights_only=True if checkpoint else None)


def in_notebook() -> bool:
    """Whether this runs in a Jupyter kernel, and not only beside modules that import one."""
    ipython = sys.modules.get("IPython")
    return ipython is not None and hasattr(ipython.get_ipython(), "kernel")


@contextmanager
def restored(training: Training) -> Iterator[None]:
    """Restores device, precision and `kl_weight` of the objective afterwards, and leaves it in evaluation mode."""
    objective = training.objective
    before, device = [network.autocast_dtype for network in networks(objective)], module_tensor(objective).device
    training.train()
    try:
        yield
    finally:
        objective.kl_weight.fill_(training.kl_target)
        objective.to(device).eval()
        for network, previous in zip(networks(objective), before, strict=True):
            network.autocast_dtype = previous


def networks(objective: Objective) -> list[MLP]:
    """The networks whose precision can be chosen."""
    return [module for module in objective.modules() if isinstance(module, MLP)]


@contextmanager
def interruptible() -> Iterator[None]:
    """Raises KeyboardInterrupt on Ctrl-C, where Lightning raises SystemExit, and restores the handler of before."""
    handler = signal.getsignal(signal.SIGINT)
    try:
        yield
    except SystemExit as stopped:
        if isinstance(stopped.__context__, KeyboardInterrupt):
            raise KeyboardInterrupt from None
        raise
    finally:
        if threading.current_thread() is threading.main_thread():
            signal.signal(signal.SIGINT, handler)


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


def write_metrics(history: Sequence[Row], path: Path) -> None:
    """The history as a CSV file, a row an epoch."""
    names = list(dict.fromkeys(name for row in history for name in row))

    def write(temporary: Path) -> None:
        with temporary.open("w", newline="") as file:
            writer = csv.DictWriter(file, names)
            writer.writeheader()
            writer.writerows(history)

    write_whole(path, write)
