"""What the estimator's tests are fitted to."""

import pytest
from sklearn.datasets import make_blobs

from helpers.estimators import hide


@pytest.fixture(scope="module")
def blobs():
    """Three clusters in five dimensions, of which three rows each have a label."""
    X, truth = make_blobs(180, 5, centers=3, cluster_std=2.0, random_state=0)
    return X, truth, hide(truth, 3)
