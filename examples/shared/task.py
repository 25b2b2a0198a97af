"""The task: a data set of which some rows keep their label, and the batches that a model learns from."""

import argparse
from collections.abc import Collection
from dataclasses import dataclass, fields

import torch
from semipyro.data import Batches, Dataset, batches, binarize, load, mask_labels
from torch import Tensor

LABELS = 100


@dataclass(frozen=True)
class DataSettings:
    """Which data to learn from, with how many labels and in which batches.

    Attributes:
        data: a name that `load` knows, or a .npz file.
        data_root: folder of the data sets; None for that of the library.
        labels: how many training rows keep their label; None where the script or the data decide.
        include_labelled: whether labelled rows count among the unlabelled ones too.
        batch_size: unlabelled rows in a batch.
        labelled_batch_size: labelled rows in a batch.
        binarize: whether pixels are drawn as 0 or 1; None where the likelihood decides.
        seed: of the labels, the networks, the batches and the noise.
    """

    data: str
    data_root: str | None
    labels: int | None
    include_labelled: bool
    batch_size: int
    labelled_batch_size: int
    binarize: bool | None
    seed: int


def read_data(args: argparse.Namespace) -> DataSettings:
    """Reads the flags of `add_data_flags`."""
    return DataSettings(**{field.name: getattr(args, field.name) for field in fields(DataSettings)})


@dataclass(frozen=True)
class Task:
    """A data set with its labels masked, ready to be learnt from.

    Attributes:
        data: what the data set is called on the command line.
        dataset: the rows, with the labels of all of them.
        y: (N,) the labels of the training rows that a model may see, -1 for the others.
        batches: what `fit` goes through in an epoch.
        likelihood: "bernoulli" or "normal".
        binarized: whether pixels are drawn as 0 or 1, anew in each batch.
        seed: of the labels, the networks, the batches and the noise.
        hidden: the classes of which no row keeps its label.
        extra: how many components the model has beyond the classes.
    """

    data: str
    dataset: Dataset
    y: Tensor
    batches: Batches
    likelihood: str
    binarized: bool
    seed: int
    hidden: tuple[int, ...] = ()
    extra: int = 0

    @property
    def num_labels(self) -> int:
        """How many training rows have a label."""
        return int((self.y >= 0).sum())

    @property
    def num_classes(self) -> int:
        """How many true classes there are."""
        return self.dataset.num_classes

    @property
    def y_dim(self) -> int:
        """K: the classes and the extra components."""
        return self.num_classes + self.extra

    @property
    def x_dim(self) -> int:
        """D: how many numbers a row has."""
        return self.dataset.train.x.shape[1]

    @property
    def x_unlabelled(self) -> Tensor:
        """The training rows without a label; all of them where every row has one."""
        without = self.y < 0
        return self.dataset.train.x[without] if without.any() else self.dataset.train.x

    @property
    def shape(self) -> tuple[int, ...]:
        """The shape in which a row is drawn: (H, W), also of images with one channel, or else (D,)."""
        sides = tuple(side for side in self.dataset.shape if side > 1)
        return sides if len(sides) == 2 else (self.x_dim,)

    @property
    def class_names(self) -> list[str] | None:
        """Names for figures where y stands for clusters; None where it stands for the classes."""
        return [f"y = {k}" for k in range(self.y_dim)] if self.hidden or self.extra else None

    def bound_x(self, x: Tensor) -> Tensor:
        """The rows on which bounds are measured: x, binarised once where the model learns from binary pixels."""
        return binarize(x, seed=0) if self.binarized else x

    def test_x(self, rows: int) -> Tensor:
        """The first of the test rows, as bounds are measured on them."""
        return self.bound_x(self.dataset.test.x[:rows])


def make_task(
    settings: DataSettings,
    *,
    likelihood: str = "auto",
    hidden: Collection[int] = (),
    extra: int = 0,
    usual: int | None = LABELS,
    clusters: bool = False,
) -> Task:
    """Loads the data, hides all labels but those that were asked for, and makes the batches.

    Args:
        settings: the flags of the data.
        likelihood: "bernoulli", "normal", or "auto" where the data decide.
        hidden: classes of which no row keeps its label.
        extra: how many components the model gets beyond the classes.
        usual: how many rows keep their label where the settings do not say; None for all rows of the other classes.
        clusters: whether the model can learn without any label, from 0 labels.

    Raises:
        ValueError: settings that do not go with the data.
    """
    dataset = load(settings.data, settings.data_root)
    likelihood, binary = decide_likelihood(settings, dataset, likelihood)
    check_classes(settings, dataset, set(hidden))
    nothing = clusters and settings.labels == 0
    y = torch.full_like(dataset.train.y, -1) if nothing else keep_labels(settings, dataset, set(hidden), usual)
    labelled = bool((y >= 0).any())
    nameless = [*hidden, *range(dataset.num_classes, dataset.num_classes + extra)]
    rows = batches(
        dataset.train.x, y, labelled_batch_size=settings.labelled_batch_size if labelled else 0,
        unlabelled_batch_size=settings.batch_size, include_labelled=settings.include_labelled, binarize=binary,
        seed=settings.seed, num_classes=dataset.num_classes + extra, hidden_classes=nameless if labelled else (),
    )  # fmt: skip
    return Task(settings.data, dataset, y, rows, likelihood, binary, settings.seed, tuple(sorted(set(hidden))), extra)


def decide_likelihood(settings: DataSettings, dataset: Dataset, likelihood: str) -> tuple[str, bool]:
    """The likelihood, and whether pixels are drawn as 0 or 1; where they are left open, the data decide.

    Raises:
        ValueError: a Bernoulli likelihood or binary pixels for data outside of [0, 1].
    """
    splits = (dataset.train, dataset.validation, dataset.test)
    low, high = min(split.x.min().item() for split in splits), max(split.x.max().item() for split in splits)
    unit = low >= 0 and high <= 1
    if likelihood == "auto":
        likelihood = "bernoulli" if unit else "normal"
    bernoulli = likelihood == "bernoulli"
    binary = bernoulli if settings.binarize is None else settings.binarize
    if (bernoulli or binary) and not unit:
        flag = "--likelihood bernoulli" if bernoulli else "--binarize"
        raise ValueError(f"{flag} needs data in [0, 1], but {settings.data} has values from {low:g} to {high:g}")
    return likelihood, binary


def check_classes(settings: DataSettings, dataset: Dataset, hidden: set[int]) -> None:
    """A ValueError for data that are not of two or more classes, or for classes to hide that are not theirs."""
    y, num_classes = dataset.train.y, dataset.num_classes
    if num_classes < 2:
        raise ValueError(f"--data {settings.data} has {num_classes} classes; this example needs labels of two or more")
    if not hidden < set(range(num_classes)):
        got = " ".join(map(str, sorted(hidden)))
        raise ValueError(
            f"--hide must be among the classes 0 to {num_classes - 1} of {settings.data}, not all, got {got}"
        )
    sizes = y[y >= 0].bincount(minlength=num_classes)
    if not sizes.all():
        raise ValueError(
            f"--data {settings.data} has no training row labelled {sizes.argmin()}; it needs classes 0 to K-1"
        )


def keep_labels(settings: DataSettings, dataset: Dataset, hidden: set[int], usual: int | None) -> Tensor:
    """The training labels that a model may see: as many of each class, or the data's own where some rows have none.

    Raises:
        ValueError: more or fewer labels than the data can have.
    """
    y = dataset.train.y
    if (y < 0).any():
        if settings.labels is not None:
            raise ValueError(
                f"--labels: {settings.data} keeps its own, since some rows have none (y = -1); leave it out"
            )
        return torch.where(torch.isin(y, torch.tensor(sorted(hidden))), -1, y)
    if settings.labels is None and usual is None:
        return mask_labels(y, fraction=1.0, hidden_classes=sorted(hidden), seed=settings.seed)
    sizes = y.bincount(minlength=dataset.num_classes)
    shown = [label for label in range(dataset.num_classes) if label not in hidden]
    scarce = min(shown, key=lambda label: int(sizes[label]))
    asked, most = settings.labels if settings.labels is not None else usual or 0, len(shown) * int(sizes[scarce])
    if not len(shown) <= asked <= most:
        raise ValueError(f"--labels must be from {len(shown)}, one for each class of {settings.data}, to {most}, as "
                         f"many of each as class {scarce} has, got {asked}")  # fmt: skip
    return mask_labels(y, per_class=asked // len(shown), hidden_classes=sorted(hidden), seed=settings.seed)
