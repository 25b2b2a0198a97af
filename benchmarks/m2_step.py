"""Time of one training step of M2, beside a loop written by hand in PyTorch.

The loop by hand is what one would write without a library: x and every class are concatenated, expanded to
(K·N, D + K), and the bound is summed. All contenders take their steps in turn, so that a noisy machine slows them
alike.

    python benchmarks/m2_step.py --rounds 60
"""

import argparse
import statistics
import time
from collections.abc import Callable

import pyro
import torch
from semipyro.distributions import MLP
from semipyro.papers import PAPERS
from torch import Tensor, nn
from torch.nn import functional

D, K, L, HIDDEN = 784, 10, 50, 500


def network_by_hand(in_dim: int, out_dim: int) -> nn.Sequential:
    """semipyro's perceptron, but of concatenated inputs."""
    return nn.Sequential(nn.Linear(in_dim, HIDDEN), nn.Softplus(), nn.Linear(HIDDEN, out_dim))


class M2ByHand(nn.Module):
    """M2's loss by hand."""

    def __init__(self) -> None:
        super().__init__()
        self.q_y = network_by_hand(D, K)
        self.q_z = network_by_hand(D + K, 2 * L)
        self.p_x = network_by_hand(K + L, D)

    def bound(self, x: Tensor, y: Tensor) -> Tensor:
        """L(x, y) with one draw of z, without log p(y), one value a row."""
        loc, log_scale = self.q_z(torch.cat([x, y], dim=1)).float().chunk(2, dim=1)
        z = loc + log_scale.exp() * torch.randn_like(loc)
        logits = self.p_x(torch.cat([y, z], dim=1)).float()
        log_p_x = -functional.binary_cross_entropy_with_logits(logits, x, reduction="none").sum(1)
        log_p_z = -0.5 * z.square().sum(1)
        log_q_z = -(0.5 * ((z - loc) / log_scale.exp()).square() + log_scale).sum(1)
        return log_p_x + log_p_z - log_q_z

    def forward(self, x_labelled: Tensor, y_labelled: Tensor, x: Tensor) -> dict[str, Tensor]:
        """The loss, with weights 1 and 1."""
        labelled = self.bound(x_labelled, y_labelled).mean()
        classification = (y_labelled * self.q_y(x_labelled).float().log_softmax(1)).sum(1).mean()
        log_q = self.q_y(x).float().log_softmax(1)
        every_y = torch.eye(K).repeat_interleave(len(x), dim=0)
        bounds = self.bound(x.repeat(K, 1), every_y).view(K, len(x)).T
        unlabelled = (log_q.exp() * (bounds - log_q)).sum(1).mean()
        return {"loss": -(labelled + classification + unlabelled)}


def stepper(objective: nn.Module, batch: tuple[Tensor, ...]) -> Callable[[], None]:
    """A function that takes one step of Adam."""
    optimizer = torch.optim.Adam(objective.parameters(), lr=3e-4)

    def step() -> None:
        optimizer.zero_grad()
        objective(*batch)["loss"].backward()
        optimizer.step()

    return step


def contenders(batch: tuple[Tensor, ...]) -> dict[str, Callable[[], None]]:
    """The step of each contender, by name."""
    semipyro, semipyro_bf16 = PAPERS["m2"].build(D, K), PAPERS["m2"].build(D, K)
    by_hand, by_hand_bf16 = M2ByHand(), M2ByHand()
    for network in semipyro_bf16.modules():
        if isinstance(network, MLP):
            network.autocast_dtype = torch.bfloat16
    for network in (by_hand_bf16.q_y, by_hand_bf16.q_z, by_hand_bf16.p_x):
        network.forward = torch.autocast("cpu", torch.bfloat16)(network.forward)  # type: ignore[method-assign] # wrapped on purpose
    objectives = {
        "by hand, fp32": by_hand,
        "semipyro, fp32": semipyro,
        "by hand, bf16": by_hand_bf16,
        "semipyro, bf16": semipyro_bf16,
    }
    return {name: stepper(objective, batch) for name, objective in objectives.items()}


def main() -> None:
    """Prints the median milliseconds of a step, and the median of the ratios round by round."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=60, help="how often each contender takes a step")
    parser.add_argument("--threads", type=int, default=torch.get_num_threads(), help="threads of PyTorch")
    parser.add_argument(
        "--validation", action=argparse.BooleanOptionalAction, default=True, help="Pyro's checks of values"
    )
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    pyro.enable_validation(args.validation)
    torch.manual_seed(0)
    batch = (torch.rand(100, D).round(), torch.eye(K).repeat(10, 1), torch.rand(100, D).round())
    steps = contenders(batch)
    times: dict[str, list[float]] = {name: [] for name in steps}
    for round_number in range(args.rounds + 5):
        for name, step in steps.items():
            start = time.perf_counter()
            step()
            if round_number >= 5:
                times[name].append(1000 * (time.perf_counter() - start))
    base = times["by hand, fp32"]
    print(f"{args.threads} threads, {args.rounds} rounds, rows 100 + 100, {D} pixels, hidden {HIDDEN}, K = {K}")
    for name, values in times.items():
        ratio = statistics.median(a / b for a, b in zip(values, base, strict=True))
        print(f"{name:18} {statistics.median(values):7.1f} ms   {ratio:.2f} of the loop by hand in fp32")


if __name__ == "__main__":
    main()
