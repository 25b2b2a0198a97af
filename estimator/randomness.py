"""Random numbers of the estimator: where its seeds come from, and how they are kept apart from everyone else's."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch
from sklearn.utils import check_random_state

from ..threads import ONE_AT_A_TIME

PREDICTION_SEED = 0  # predictions draw with this seed, so that every call and every row sees the same noise
NUM_SEEDS = 2**32  # NumPy takes the seeds from 0 to 2**32 - 1
NUM_DRAWN_SEEDS = 2**31 - 1  # seeds that are drawn from a `RandomState` lie below this number


@contextmanager
def kept_apart() -> Iterator[None]:
    """Holds off the other threads of this process, and restores PyTorch's random numbers afterwards."""
    with ONE_AT_A_TIME, torch.random.fork_rng():
        yield


def seed_from(random_state: Any) -> int:
    """An integer is its own seed; from None or a `RandomState`, as scikit-learn has them, a seed is drawn."""
    if isinstance(random_state, int | np.integer):
        return int(random_state)
    return int(check_random_state(random_state).randint(NUM_DRAWN_SEEDS))
