"""How the learning rate changes with the epoch, for `fit(schedule=)`."""

from collections.abc import Callable

from ...checks import check_counts


def linear_decay(epochs: int, *, start: float = 0.5) -> Callable[[int], float]:
    """Epoch e (from 0) → min(1, (E − e) / (E − start · E)): 1 at first, then in equal steps to what would be 0 at E.

    Args:
        epochs: E, of the whole run.
        start: the fraction of the epochs after which the learning rate begins to fall.

    Raises:
        ValueError: `epochs` is not a positive integer, or `start` not from 0 to below 1.

    Example:
        >>> [linear_decay(4)(epoch) for epoch in range(4)]
        [1.0, 1.0, 1.0, 0.5]
    """
    check_counts(epochs=epochs)
    if not 0 <= start < 1:
        raise ValueError(f"start must be a fraction from 0 to below 1, got {start!r}")
    return lambda epoch: min(1.0, (epochs - epoch) / (epochs * (1 - start)))
