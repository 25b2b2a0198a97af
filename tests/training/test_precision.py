"""The precision of the networks: bf16 stays inside them, and `auto` takes it where the processor multiplies it."""

import pytest
import torch
from semipyro.distributions import MLP
from semipyro.inference import fit
from semipyro.inference.training import precision
from semipyro.inference.training.precision import network_precision
from torch import nn

from helpers.training_runs import m2_run


def test_bf16_is_in_the_networks_only_and_gone_afterwards(monkeypatch):
    seen = []
    original = nn.functional.linear
    monkeypatch.setattr(
        nn.functional, "linear", lambda *args: seen.append(torch.is_autocast_enabled("cpu")) or original(*args)
    )
    objective, rows, held_out = m2_run()
    (row,) = fit(objective, rows, epochs=1, precision="bf16", progress=False)
    assert seen
    assert all(seen)
    assert {p.dtype for p in objective.parameters()} == {torch.float32}
    assert {m.autocast_dtype for m in objective.modules() if isinstance(m, MLP)} == {None}
    objective, rows, held_out = m2_run()
    (exact,) = fit(objective, rows, epochs=1, validation=held_out, progress=False)
    assert row["unlabelled"] == pytest.approx(exact["unlabelled"], rel=0.01)
    assert row["unlabelled"] != exact["unlabelled"]


@pytest.mark.parametrize("fast", [True, False])
def test_auto_precision_is_bf16_where_the_processor_multiplies_it(monkeypatch, fast):
    monkeypatch.setattr(precision, "multiplies_bf16", lambda: fast)
    found = []
    for asked in ("auto", "bf16" if fast else "32"):
        objective, rows, _ = m2_run()
        found += fit(objective, rows, epochs=1, precision=asked, device="cpu", progress=False)
    assert found[0]["loss"] == found[1]["loss"]
    assert network_precision("auto", "cpu") == ("bf16" if fast else "32")


def test_what_the_processor_says_decides(monkeypatch):
    for told, fast in (({}, False), ({"avx2": True, "avx512_bf16": False}, False), ({"amx_bf16": True}, True)):
        monkeypatch.setattr(torch.cpu, "get_capabilities", lambda told=told: told, raising=False)
        assert precision.multiplies_bf16() is fast
    monkeypatch.delattr(torch.cpu, "get_capabilities")
    assert not precision.multiplies_bf16()
