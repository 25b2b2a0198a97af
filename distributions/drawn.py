"""Distributions that score a draw by what it was made from."""

from abc import ABC, abstractmethod
from typing import Any

import torch
from torch import Tensor


class ScoredAsDrawn(ABC):
    """`rsample` keeps the last draw and its log-density; `log_prob` of that very tensor is the kept one.

    So a draw can be scored where its density at a value from elsewhere is dear or out of reach. To stand before a
    `TorchDistribution` among the bases.
    """

    has_rsample = True
    _drawn: tuple[Tensor, Tensor] | None = None

    @abstractmethod
    def draw(self, sample_shape: torch.Size) -> tuple[Tensor, Tensor]:
        """A draw that gradients pass through, (*sample_shape, ..., L), and its log-density, in nats."""

    @abstractmethod
    def score(self, value: Tensor) -> Tensor:
        """The log-density, in nats, of a value from elsewhere."""

    def rsample(self, sample_shape: Any = torch.Size()) -> Tensor:  # noqa: B008 # as torch has it
        """A draw that gradients pass through."""
        self._drawn = self.draw(torch.Size(sample_shape))
        return self._drawn[0]

    def sample(self, sample_shape: Any = torch.Size()) -> Tensor:  # noqa: B008 # as torch has it
        """A draw without gradients; its log-density keeps its own."""
        with torch.no_grad():
            return self.draw(torch.Size(sample_shape))[0]

    def log_prob(self, value: Tensor) -> Tensor:
        """The log-density, in nats."""
        if self._drawn is not None and value is self._drawn[0]:
            return self._drawn[1]
        return self.score(value)
