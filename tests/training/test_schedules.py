"""Schedules of the learning rate."""

import pytest
from semipyro.inference import fit, linear_decay

from helpers.training_runs import m2_run


def test_linear_decay_by_hand():
    """1 up to the start, then equal steps, of which the next after the last would be 0."""
    rates = [linear_decay(10, start=0.6)(epoch) for epoch in range(11)]
    assert rates == pytest.approx([1] * 7 + [0.75, 0.5, 0.25, 0])
    assert [linear_decay(4, start=0)(epoch) for epoch in range(5)] == [1, 0.75, 0.5, 0.25, 0]


def test_fit_follows_it():
    objective, rows, _ = m2_run()
    history = fit(objective, rows, epochs=4, learning_rate=0.01, schedule=linear_decay(4), progress=False)
    assert [row["learning_rate"] for row in history] == pytest.approx([0.01, 0.01, 0.01, 0.005])


@pytest.mark.parametrize("start", [-0.1, 1, 1.5, float("nan")])
def test_a_start_outside_of_the_run(start):
    with pytest.raises(ValueError, match="start must be a fraction from 0 to below 1"):
        linear_decay(5, start=start)


def test_epochs_are_counted_from_one():
    with pytest.raises(ValueError, match="epochs must be an integer of at least 1, got 0"):
        linear_decay(0)
