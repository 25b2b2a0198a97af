"""What a model holds: its prior of the classes is a buffer, and no parameter."""

import torch
from semipyro.models import M2


def test_a_model_with_a_uniform_prior_keeps_k_ones() -> None:
    """`y_prior` is a buffer of K probabilities, uniform where it is None, and part of no gradient."""
    model = M2.build(5, 3, z_dim=2)
    assert torch.allclose(model.y_prior, torch.full((3,), 1 / 3))
    assert not any(p is model.y_prior for p in model.parameters())
