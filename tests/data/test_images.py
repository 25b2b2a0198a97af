"""Binarising images, and the pixels that vary."""

import math

import pytest
import torch
from semipyro.data import binarize, pixel_filter


def test_binarize_draws_with_the_right_means():
    x = torch.tensor([[0.0, 0.2, 0.9, 1.0]]).repeat(20_000, 1)
    b = binarize(x, seed=0)
    assert set(b.unique().tolist()) == {0, 1}
    error = (x[0] * (1 - x[0]) / len(x)).sqrt()
    assert ((b.mean(0) - x[0]).abs() <= 6 * error).all()  # 0 and 1 exactly


def test_binarize_never_inks_a_white_pixel():
    """In half precision a uniform draw is 0 about every 2,000 times: 0 < 0 must be false."""
    assert not binarize(torch.zeros(100_000, dtype=torch.float16), seed=0).any()


def test_binarize_depends_on_the_seed_alone():
    x = torch.full((50, 4), 0.5)
    before = torch.get_rng_state()
    first = binarize(x, 3)
    assert torch.equal(torch.get_rng_state(), before)
    torch.manual_seed(9)
    assert torch.equal(first, binarize(x, 3))
    assert not torch.equal(first, binarize(x, 4))
    assert binarize(x.double().numpy(), 3).dtype == torch.float64


@pytest.mark.parametrize("x", [torch.tensor([1.1]), torch.tensor([-0.1]), torch.tensor([math.nan])])
def test_binarize_refuses_what_is_no_probability(x):
    with pytest.raises(ValueError, match=r"x must lie in \[0, 1\] to be binarised.*divide by 255"):
        binarize(x, 0)


def test_binarize_refuses_integers():
    with pytest.raises(ValueError, match="x must be floating probabilities"):
        binarize(torch.tensor([1], dtype=torch.uint8), 0)


def test_pixel_filter_keeps_what_varies():
    spread = torch.tensor([0.0, 0.09, 0.11, 0.5])
    x = 0.5 + spread * torch.tensor([[1.0], [-1.0]])  # standard deviations are `spread`
    assert pixel_filter(x).tolist() == [False, False, True, True]
    assert pixel_filter(x, threshold=0.2).tolist() == [False, False, False, True]
    with pytest.raises(ValueError, match=r"threshold must be below 0\.5, by which a pixel varies most, got 0\.6"):
        pixel_filter(x, 0.6)
    with pytest.raises(ValueError, match="x must be floating numbers"):
        pixel_filter(x[0])
