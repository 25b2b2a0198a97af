"""Batches of labelled and unlabelled rows, side by side."""

import hashlib
import math
from collections.abc import Callable, Iterable, Iterator, Mapping
from itertools import repeat
from typing import Any

import torch
from torch import Tensor
from torch.nn.functional import one_hot

from ..checks import check_counts
from .checks import classes, count_classes, first, generator, labels, matrix, probabilities
from .images import bernoulli

Batch = tuple[Tensor | None, Tensor | None, Tensor | None]


class Batches:
    """An iterable of ``(x_labelled (n, D), y_labelled one-hot (n, K), x_unlabelled (m, D))``; made by ``batches``.

    Each iteration is one pass over the unlabelled rows in a new random order. The labelled rows repeat in shuffled
    passes of their own, which start anew with each iteration. Labels of unlabelled rows are not stored.

    Attributes:
        num_labelled: rows in the labelled stream, N_l.
        num_unlabelled: rows in the unlabelled stream, N_u; with ``include_labelled`` that is all rows.
        num_classes: K.
        labelled_batch_size: n; 0 where there is no labelled stream.
        unlabelled_batch_size: m.
        binarize: whether each batch is a new draw from Bern(x).
        transform: the name of the function that is applied to each batch's rows; None where there is none.
        seed: the seed of the random generator.
        fingerprint: a checksum of the rows and labels, so that a run is not resumed with other data.
    """

    declared_settings = (
        "num_labelled", "num_unlabelled", "num_classes", "labelled_batch_size", "unlabelled_batch_size", "binarize",
        "transform", "seed", "fingerprint",
    )  # fmt: skip

    def __init__(
        self,
        x: Tensor,
        *,
        labelled_rows: Tensor,
        labels: Tensor,
        unlabelled_rows: Tensor,
        labelled_batch_size: int,
        unlabelled_batch_size: int,
        binarize: bool = False,
        transform: Callable[[Tensor], Tensor] | None = None,
        seed: int = 0,
    ) -> None:
        """Take what ``batches`` has checked: row numbers, and the labelled rows' labels as one-hot (N_l, K)."""
        self.num_labelled, self.num_classes = labels.shape
        self.num_unlabelled = len(unlabelled_rows)
        self.labelled_batch_size, self.unlabelled_batch_size = labelled_batch_size, unlabelled_batch_size
        self._x, self._labels = x, labels
        self._labelled_rows, self._unlabelled_rows = labelled_rows, unlabelled_rows
        self.binarize, self.seed = binarize, seed
        named = getattr(transform, "__name__", type(transform).__name__)
        self.transform = named if transform is not None else None  # a resumed run compares it
        self._transform = transform
        self.fingerprint = _fingerprint(x, labels, labelled_rows, unlabelled_rows)
        self._random = generator(seed)

    def __len__(self) -> int:
        """The number of batches in a pass."""
        if self.num_unlabelled:
            return math.ceil(self.num_unlabelled / self.unlabelled_batch_size)
        return math.ceil(self.num_labelled / self.labelled_batch_size)

    def __iter__(self) -> Iterator[Batch]:
        """One pass."""
        for picked, rows in zip(self._labelled(), self._unlabelled(), strict=True):
            x_labelled = y_labelled = x_unlabelled = None
            if picked is not None:
                x_labelled, y_labelled = self._draw(self._labelled_rows[picked]), self._labels[picked]
            if rows is not None:
                x_unlabelled = self._draw(rows)
            yield x_labelled, y_labelled, x_unlabelled

    def state_dict(self) -> dict[str, Tensor]:
        """The state of the random generator. Taken between two passes, it makes the next pass repeatable."""
        return {"generator": self._random.get_state()}

    def load_state_dict(self, state: Mapping[str, Tensor]) -> None:
        """Continue from a ``state_dict()``.

        Raises:
            ValueError: the state is not that of a generator.
        """
        try:
            self._random.set_state(state["generator"].cpu())
        except (AttributeError, KeyError, RuntimeError, TypeError) as error:
            raise ValueError(f"state must be what state_dict() returned, got {state!r:.80}") from error

    def _unlabelled(self) -> Iterable[Tensor | None]:
        if not self.num_unlabelled:
            return repeat(None, len(self))
        order = torch.randperm(self.num_unlabelled, generator=self._random)
        return self._unlabelled_rows[order].split(self.unlabelled_batch_size)

    def _labelled(self) -> Iterable[Tensor | None]:
        """Positions among the labelled rows: a batch for each unlabelled batch; one pass where no row is unlabelled."""
        if not self.num_labelled:
            return repeat(None, len(self))
        wanted = len(self) * self.labelled_batch_size if self.num_unlabelled else self.num_labelled
        passes = math.ceil(wanted / self.num_labelled)
        order = torch.cat([torch.randperm(self.num_labelled, generator=self._random) for _ in range(passes)])
        return order[:wanted].split(self.labelled_batch_size)

    def _draw(self, rows: Tensor) -> Tensor:
        x = self._x[rows]
        x = bernoulli(x, self._random) if self.binarize else x
        return x if self._transform is None else self._transform(x)


def batches(
    x: Any,
    y: Any = None,
    *,
    labelled_batch_size: int,
    unlabelled_batch_size: int,
    include_labelled: bool = False,
    binarize: bool = False,
    transform: Callable[[Tensor], Tensor] | None = None,
    seed: int = 0,
    num_classes: int | None = None,
    hidden_classes: Iterable[int] = (),
) -> Batches:
    """Batches for a semi-supervised objective, each ``(x_labelled, y_labelled one-hot, x_unlabelled)``.

    A pass goes once over the unlabelled rows, shuffled; its last batch may be smaller. Meanwhile the labelled rows
    repeat in batches of exactly ``labelled_batch_size``, even if there are fewer labelled rows. Where no row is
    unlabelled, ``x_unlabelled`` is None and a pass goes once over the labelled rows. Order and binarisation depend
    only on ``seed`` and the number of the pass.

    Args:
        x: floating, (N, D), a tensor, or an array, which is converted to PyTorch's default type.
        y: integers, (N,), -1 for unlabelled rows; None for no labels.
        labelled_batch_size: n; 0 leaves the labelled side out (None, None).
        unlabelled_batch_size: m.
        include_labelled: the unlabelled stream has the labelled rows too (their x, not their labels).
        binarize: each batch is a new draw from Bern(x).
        transform: a function of the rows of every batch, such as a draw from distributions that the rows describe; its
            noise comes from PyTorch's global generator.
        seed: seed of the batches' own generator.
        num_classes: K; the largest label plus one where not given. At most N, or 1,000 where N is smaller.
        hidden_classes: the classes that are meant to have no label.

    Returns:
        An iterable with a length, ``num_labelled``, ``num_unlabelled``, ``num_classes``, ``state_dict()`` and
        ``load_state_dict()``.

    Raises:
        ValueError: wrong shapes, types or sizes; NaN; a label outside 0..K-1; a class without any labelled row that is
            not named in ``hidden_classes``; to binarise, an x outside [0, 1].

    >>> x, y = torch.rand(10, 3), torch.tensor([0, 1] + 8 * [-1])
    >>> data = batches(x, y, labelled_batch_size=2, unlabelled_batch_size=5)
    >>> [[part.shape[0] for part in batch] for batch in data]
    [[2, 2, 5], [2, 2, 3]]
    """
    check_counts(0, labelled_batch_size=labelled_batch_size)
    check_counts(unlabelled_batch_size=unlabelled_batch_size)
    n, m = int(labelled_batch_size), int(unlabelled_batch_size)
    given = x
    x = matrix("x", given)
    if not isinstance(given, Tensor):
        x = x.to(torch.get_default_dtype())  # NumPy's default is float64, that of networks float32
    y = torch.full((len(x),), -1) if y is None else labels("y", y, length=len(x))
    k = count_classes("y", y, num_classes)
    hidden = classes("hidden_classes", hidden_classes, known=range(k))
    if n:
        _check_coverage(y, k, hidden)
    if binarize:
        probabilities("x", x)
    labelled_rows = (y >= 0).nonzero().flatten() if n else torch.empty(0, dtype=torch.int64)
    return Batches(
        x,
        labelled_rows=labelled_rows,
        labels=one_hot(y[labelled_rows], k).to(x) if k else x.new_empty(0, 0),
        unlabelled_rows=_unlabelled_rows(y, n, include_labelled),
        labelled_batch_size=n,
        unlabelled_batch_size=m,
        binarize=binarize,
        transform=transform,
        seed=seed,
    )


def _fingerprint(x: Tensor, *others: Tensor) -> str:
    digest = hashlib.sha256()
    for tensor in (x.double().sum(0), x[:1], *others):
        digest.update(tensor.cpu().numpy().tobytes())
    return digest.hexdigest()[:16]


def _check_coverage(y: Tensor, num_classes: int, hidden: set[int]) -> None:
    """Raise ValueError unless each class either has a labelled row or is hidden."""
    labelled = set(y[y >= 0].tolist())
    if not labelled:
        raise ValueError(
            "y must have a labelled row, got none; label some, or give labelled_batch_size=0 to learn without labels"
        )
    if labelled & hidden:
        raise ValueError(
            f"hidden_classes must have no labels in y, got class {min(labelled & hidden)}, which has some; hide them "
            "with mask_labels"
        )
    bare = sorted(set(range(num_classes)) - labelled - hidden)
    if bare:
        raise ValueError(
            f"y must have a labelled row in every class, got none in {first(bare)}; label some, or give "
            f"hidden_classes={first(bare)} if so meant"
        )


def _unlabelled_rows(y: Tensor, labelled_batch_size: int, include_labelled: bool) -> Tensor:
    if include_labelled:
        return torch.arange(len(y))
    rows = (y < 0).nonzero().flatten()
    if not len(rows) and not labelled_batch_size:
        raise ValueError(
            "y must have an unlabelled row with labelled_batch_size=0, got labels in every row; give "
            "include_labelled=True to learn from these rows without their labels"
        )
    return rows
