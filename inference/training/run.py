"""What a run of `fit` is made of, in one place, and what of it a resumed run compares."""

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from ... import contract
from ...checks import check_choice, check_counts, check_not_negative, check_positive
from ..objectives import Objective
from .precision import PRECISIONS

Batch = tuple[Tensor | None, Tensor | None, Tensor | None]
Row = dict[str, float]
DEVICES = {"auto": "auto", "cpu": "cpu", "cuda": "gpu", "mps": "mps"}  # as `fit` and as Lightning call them


@dataclass(frozen=True)
class Settings:
    """The numbers and words of a run, as `fit` explains them; a ValueError for one that is out of range or unknown."""

    epochs: int
    learning_rate: float = 3e-4
    weight_decay: float = 0.0
    kl_warmup: int = 0
    gradient_clip_norm: float | None = None
    gradient_clip_value: float | None = None
    patience: int | None = None
    device: str = "auto"
    precision: str = "32"

    def __post_init__(self) -> None:
        """Refuses what cannot be run."""
        check_counts(epochs=self.epochs)
        check_counts(0, kl_warmup=self.kl_warmup)
        check_counts(**_given(patience=self.patience))
        clips = _given(gradient_clip_norm=self.gradient_clip_norm, gradient_clip_value=self.gradient_clip_value)
        check_positive(learning_rate=self.learning_rate, **clips)
        check_not_negative(weight_decay=self.weight_decay)
        check_choice(DEVICES, device=self.device)
        check_choice(PRECISIONS, precision=str(self.precision))
        present: dict[str, Callable[[], bool]] = {
            "cuda": torch.cuda.is_available, "mps": torch.backends.mps.is_available,
        }  # fmt: skip
        if self.device in present and not present[self.device]():
            raise ValueError(f"device {self.device!r} is not available on this machine; choose 'cpu' or 'auto'")

    def compared(self) -> dict[str, Any]:
        """The settings that change a run's numbers; how long and where it runs may differ."""
        return {
            "learning_rate": float(self.learning_rate),
            "weight_decay": float(self.weight_decay),
            "kl_warmup": int(self.kl_warmup),
            "gradient_clip_norm": self.gradient_clip_norm and float(self.gradient_clip_norm),
            "gradient_clip_value": self.gradient_clip_value and float(self.gradient_clip_value),
            "precision": str(self.precision),
        }


@dataclass(frozen=True)
class Run:
    """What `fit` was given, checked.

    Attributes:
        objective: what is minimised.
        batches: gone through once an epoch.
        settings: numbers and words.
        optimizer: makes the optimiser.
        schedule: epoch → factor of the learning rate.
        validation: held-out rows, with their labels if there are any.
        validation_bound_x: the rows for the bounds, where they are others.
        monitor: the column of the history that says which epoch is the best; None without validation.
        folder: for checkpoints; None for none.
        metrics_file: for the history; None for none.
        report: called with each row of the history.
    """

    objective: Objective
    batches: Iterable[Batch]
    settings: Settings
    optimizer: Callable[..., torch.optim.Optimizer]
    schedule: Callable[[int], float] | None
    validation: tuple[Tensor, Tensor | None] | None
    validation_bound_x: Tensor | None
    monitor: str | None
    folder: Path | None
    metrics_file: Path | None
    report: Callable[[Row], None] | None

    def compared(self) -> dict[str, Any]:
        """What a resumed run must have in common with the run before: settings, and what its parts declare.

        A part of the objective, and the batches, have their type and the values that they name in
        `declared_settings`; weights are compared by their shapes. `schedule` is a function, which cannot be compared.
        """
        parts: dict[str, object] = {f"objective.{name}".rstrip("."): p for name, p in self.objective.named_modules()}
        found = {
            **self.settings.compared(),
            "optimizer": getattr(self.optimizer, "__name__", type(self.optimizer).__name__),
            "monitor": self.monitor,
        }
        for path, part in {**parts, "batches": self.batches}.items():
            found[path] = type(part).__name__
            found |= {f"{path}.{name}": value for name, value in contract.settings(part).items()}
        return found


def _given(**numbers: float | None) -> dict[str, float]:
    return {name: number for name, number in numbers.items() if number is not None}
