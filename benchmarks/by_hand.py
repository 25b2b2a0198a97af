"""M2's training step written by hand in plain PyTorch, for this one model: what the library's step is measured against.

    loss = −(mean_u U + labelled_weight · mean_l L + classification_weight · mean_l log q(y | x))

`Concatenating` is what most people write: every row is repeated for each class, and the networks read [x, y] and
[y, z]. `Fastest` is the best that we can write: the first layers add W_x x and W_y y in the place of reading a
concatenation, labelled and unlabelled rows share their products, and Adam is fused. Both have the KL of the Gaussian
q(z | x, y) in closed form, where the library draws.

Shapes: x (N, D); y one-hot (N, K); z (N, L).
"""

import math

import torch
from torch import Tensor, nn
from torch.nn import functional

LABELLED_WEIGHT, CLASSIFICATION_WEIGHT = 0.1, 50.0  # as in papers.py


class Network(nn.Module):
    """One hidden layer: W₂ softplus(W₁ x + b₁) + b₂."""

    def __init__(self, inputs: int, hidden: int, outputs: int) -> None:
        super().__init__()
        self.first, self.last = nn.Linear(inputs, hidden), nn.Linear(hidden, outputs)

    def forward(self, x: Tensor) -> Tensor:
        """Maps (N, inputs) to (N, outputs)."""
        return self.after(self.first(x))

    def after(self, hidden: Tensor) -> Tensor:
        """What the hidden layer, before its activation, is mapped to."""
        output: Tensor = self.last(functional.softplus(hidden))
        return output

    def split(self, *widths: int) -> tuple[Tensor, ...]:
        """The columns of W₁ that read inputs of these widths."""
        return self.first.weight.split(widths, 1)


class Concatenating(nn.Module):
    """M2 with a Bernoulli likelihood and a uniform p(y).

    Args:
        x_dim: D.
        y_dim: K.
        z_dim: L.
        hidden: width of the hidden layers.
    """

    fused = False

    def __init__(self, x_dim: int, y_dim: int, *, z_dim: int, hidden: int) -> None:
        super().__init__()
        self.y_dim = y_dim
        self.q_y = Network(x_dim, hidden, y_dim)
        self.q_z = Network(x_dim + y_dim, hidden, 2 * z_dim)
        self.p_x = Network(y_dim + z_dim, hidden, x_dim)
        self.optimizer = torch.optim.Adam(self.parameters(), lr=1e-3, fused=self.fused)

    def step(self, *rows: Tensor) -> None:
        """One step of Adam on a batch."""
        self.optimizer.zero_grad()
        self(*rows).backward()
        self.optimizer.step()

    def forward(self, x_labelled: Tensor, y_labelled: Tensor, x: Tensor) -> Tensor:
        """The loss of a batch."""
        log_q = functional.log_softmax(self.q_y(x), 1)
        every_y = torch.eye(self.y_dim).repeat_interleave(len(x), 0)
        bounds = self.bound(x.repeat(self.y_dim, 1), every_y).view(self.y_dim, len(x)).T
        unlabelled = (log_q.exp() * (bounds - log_q)).sum(1).mean()
        labelled = self.bound(x_labelled, y_labelled).mean()
        classification = (functional.log_softmax(self.q_y(x_labelled), 1) * y_labelled).sum(1).mean()
        return -(unlabelled + LABELLED_WEIGHT * labelled + CLASSIFICATION_WEIGHT * classification)

    def bound(self, x: Tensor, y: Tensor) -> Tensor:
        """L(x, y) of each row."""
        z, kl = drawn(self.q_z(torch.cat([x, y], 1)))
        logits = self.p_x(torch.cat([y, z], 1))
        log_p_x = -functional.binary_cross_entropy_with_logits(logits, x, reduction="none").sum(1)
        return log_p_x - kl - math.log(self.y_dim)


class Fastest(Concatenating):
    """The same loss with less arithmetic."""

    fused = True

    def forward(self, x_labelled: Tensor, y_labelled: Tensor, x: Tensor) -> Tensor:
        """The loss of a batch; in what the networks map, the labelled rows come first, then each row under each y."""
        known, k = len(x_labelled), self.y_dim

        def with_y(of_rows: Tensor, of_y: Tensor) -> Tensor:
            unknown = of_rows[known:].view(-1, len(x), of_rows.shape[1]) + of_y.T[:, None]
            return torch.cat([of_rows[:known] + y_labelled @ of_y.T, unknown.flatten(0, 1)])

        both = torch.cat([x_labelled, x])
        log_q = functional.log_softmax(self.q_y(both), 1)
        of_x, of_y = self.q_z.split(both.shape[1], k)
        z, kl = drawn(self.q_z.after(with_y(functional.linear(both, of_x, self.q_z.first.bias), of_y)))
        of_y, of_z = self.p_x.split(k, z.shape[1])
        logits = self.p_x.after(with_y(functional.linear(z, of_z, self.p_x.first.bias), of_y))
        rest = -kl - math.log(k)
        labelled = log_bernoulli(x_labelled, logits[:known]) + rest[:known]
        bounds = (log_bernoulli(x, logits[known:].view(k, len(x), -1)) + rest[known:].view(k, len(x))).T
        unlabelled = (log_q[known:].exp() * (bounds - log_q[known:])).sum(1).mean()
        classification = (log_q[:known] * y_labelled).sum(1).mean()
        return -(unlabelled + LABELLED_WEIGHT * labelled.mean() + CLASSIFICATION_WEIGHT * classification)


def drawn(output: Tensor) -> tuple[Tensor, Tensor]:
    """z ~ N(μ, σ²) for output [μ, log σ], and KL(N(μ, σ²) ‖ N(0, I)) of each row."""
    loc, log_scale = output.chunk(2, 1)
    scale = log_scale.exp()
    return loc + scale * torch.randn_like(loc), (0.5 * (loc**2 + scale**2 - 1) - log_scale).sum(1)


def log_bernoulli(x: Tensor, logits: Tensor) -> Tensor:
    """log p(x) of each row."""
    return (x * logits - functional.softplus(logits)).sum(-1)
