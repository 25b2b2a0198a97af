"""Data sets, label masking and batches.

``load`` reads a data set by name or from an ``.npz``, ``mask_labels`` hides labels, and ``batches`` mixes labelled and
unlabelled rows. Labels are integers with -1 for "unlabelled" everywhere but in a batch, where they are one-hot.
"""

from .batching import Batch, Batches, batches
from .dataset import Dataset, Split
from .images import binarize, pixel_filter
from .loading import load
from .masking import mask_labels

__all__ = ["Batch", "Batches", "Dataset", "Split", "batches", "binarize", "load", "mask_labels", "pixel_filter"]
