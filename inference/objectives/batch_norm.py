"""Which rows batch normalisation goes by: the same in every term of a step, and in evaluation.

With y summed out, a network sees each row K times, mostly under classes that it does not have, and no term constrains
the latents of a wrong class; labelled rows are few. By the statistics of either, a bound in training would be another
function than in evaluation.
"""

from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager

from torch import Tensor, nn

from ...distributions.mlp import BatchNorm


def batch_norms(module: nn.Module) -> list[BatchNorm]:
    """The layers of batch normalisation."""
    return [layer for layer in module.modules() if isinstance(layer, BatchNorm)]


@contextmanager
def normalised_alike(module: nn.Module, statistics_pass: Callable[[], object]) -> Iterator[None]:
    """Inside, batch normalisation in training goes by the statistics of the rows of a first pass.

    `statistics_pass` is that pass. It alone moves the running statistics, so that a bound is the same function in
    training and in evaluation. A layer that it does not reach normalises by the statistics of its own rows.
    """
    layers = batch_norms(module)
    try:
        if layers and module.training:
            for layer, given in statistics_of(layers, statistics_pass).items():
                layer.given = given
        for layer in layers:
            layer.track_running_stats = False
        yield
    finally:
        for layer in layers:
            layer.track_running_stats, layer.given = True, None


def statistics_of(layers: Iterable[BatchNorm], run: Callable[[], object]) -> dict[BatchNorm, tuple[Tensor, Tensor]]:
    """Mean and variance, with their gradients, of the rows that each layer gets while this runs."""
    found = {}

    def note(layer: BatchNorm, inputs: tuple[Tensor], output: Tensor) -> None:
        found[layer] = layer.statistics(*inputs)

    hooks = [layer.register_forward_hook(note) for layer in layers]
    try:
        run()
    finally:
        for hook in hooks:
            hook.remove()
    return found


@contextmanager
def statistics_detached(module: nn.Module) -> Iterator[None]:
    """Inside, no gradient passes through the statistics that batch normalisation was given."""
    given = {layer: layer.given for layer in batch_norms(module) if layer.given is not None}
    try:
        for layer, (mean, variance) in given.items():
            layer.given = mean.detach(), variance.detach()
        yield
    finally:
        for layer, own in given.items():
            layer.given = own
