"""What ``load`` returns: three splits, the number of classes and the shape of one row."""

from dataclasses import dataclass

from torch import Tensor


@dataclass(frozen=True, eq=False)
class Split:
    """Rows and their labels.

    Attributes:
        x: float32, (N, D).
        y: int64, (N,); a class in 0..K-1, or -1 where unlabelled.
    """

    x: Tensor
    y: Tensor

    def __len__(self) -> int:
        """The number of rows, N."""
        return len(self.x)


@dataclass(frozen=True, eq=False)
class Dataset:
    """A data set in memory.

    Attributes:
        name: the name it was loaded by; for a file, the file's name without ``.npz``.
        train: what a model is fitted to.
        validation: what settings and checkpoints are chosen on.
        test: what numbers are reported on.
        num_classes: K; 0 where there are no labels at all.
        shape: the shape of one row before it was flattened to D numbers, such as (28, 28) or (2,).
    """

    name: str
    train: Split
    validation: Split
    test: Split
    num_classes: int
    shape: tuple[int, ...]
