"""The loops by hand have the library's loss, every table is measured, and the page is the script's."""

from importlib import import_module
from types import ModuleType

import pytest
import torch
from semipyro.distributions import MLP
from semipyro.papers import PAPERS
from torch import Tensor, nn

from helpers.comparisons import SIGMAS

D, K, L, HIDDEN, DRAWS = 12, 4, 3, 8, 200


@pytest.fixture(scope="module")
def speed(root):
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(root / "benchmarks")
        yield import_module("speed")


def load(network: nn.Module, mlp: MLP) -> None:
    """Gives a network by hand the weights of the library's."""
    for layer, own in ((network.first, mlp.first), (network.last, mlp.last)):
        layer.weight.data.copy_(own.weight.data)
        layer.bias.data.copy_(own.bias.data)


@torch.no_grad()
def losses(speed: ModuleType, name: str, plant: float = 0.0) -> tuple[Tensor, Tensor]:
    """Draws of the loss of a loop by hand and of the library, with the same weights."""
    torch.manual_seed(0)
    objective = PAPERS["m2"].build(D, K, z_dim=L, hidden=(HIDDEN,))
    for module in objective.modules():
        if isinstance(module, MLP):
            nn.init.normal_(module.last.weight, std=0.3)
    by_hand = getattr(speed, name)(D, K, z_dim=L, hidden=HIDDEN)
    for network, mlp in (
        (by_hand.q_y, objective.guide.q_y.mlp), (by_hand.q_z, objective.guide.q_z.mlp),
        (by_hand.p_x, objective.model.p_x.mlp),
    ):  # fmt: skip
        load(network, mlp)
    by_hand.p_x.last.bias += plant
    batch = speed.Size(D, HIDDEN, L, K).batch()
    found = [torch.stack([by_hand(*batch) for _ in range(DRAWS)])]
    return found[0], torch.stack([objective(*batch)["loss"] for _ in range(DRAWS)])


def same_mean(a: Tensor, b: Tensor) -> bool:
    return bool((a.mean() - b.mean()).abs() <= SIGMAS * ((a.var() + b.var()) / DRAWS).sqrt())


@pytest.mark.parametrize("name", ["Concatenating", "Fastest"])
def test_the_loops_by_hand_have_the_library_s_loss(speed, name):
    """In the mean over draws of z, since their KL is in closed form; another decoder is noticed."""
    assert same_mean(*losses(speed, name))
    assert not same_mean(*losses(speed, name, plant=0.3))


def test_the_loops_by_hand_learn(speed):
    size = speed.Size(D, HIDDEN, L, K)
    for kind in (speed.Concatenating, speed.Fastest):
        model, batch = size.by_hand(kind), size.batch()
        before = model(*batch).item()
        for _ in range(50):
            model.step(*batch)
        assert model(*batch).item() < before - 1


def test_every_table_is_measured_and_told(speed, monkeypatch, tmp_path):
    """With tiny networks and a round of each; a second run keeps the tables that it is not asked for."""
    small = speed.Size(D, HIDDEN, L, K)
    monkeypatch.setattr(speed, "SIZES", (small,))
    monkeypatch.setattr(speed, "CLASSES", (small, small._replace(y_dim=60)))
    monkeypatch.setattr(speed, "MODELS", {"m2": {"hidden": (8,)}, "gm-dgm": {"hidden": (8,), "y_dim": 6}})
    monkeypatch.setattr(speed, "STEPS", 2)
    monkeypatch.setattr(speed, "memory", lambda size, m: 1.5)
    speed.main(["run", "--rounds", "1", "--results", str(tmp_path)])
    measured = speed.read_json(tmp_path / "speed.json")
    assert list(measured) == list(speed.TABLES)
    assert measured["step"]["rows"][0]["ratio"] == 1.0
    assert [row["name"] for row in measured["classes"]["rows"] if row["K"] == 60] == ["summed_classes=1"]
    assert all(row["ms"] > 0 for table in measured.values() for row in table["rows"])
    assert (tmp_path / "speed.md").read_text() == speed.page(measured)
    assert (tmp_path / "speed.png").stat().st_size > 0
    speed.main(["run", "--rounds", "2", "--tables", "step", "--results", str(tmp_path)])
    again = speed.read_json(tmp_path / "speed.json")
    assert (again["step"]["rounds"], again["fit"]) == (2, measured["fit"])


def test_memory_is_that_of_the_step(speed):
    """400 copies of a hidden layer for 100 rows take 80 MB, of which a step keeps several."""
    assert 80 < speed.memory(speed.Size(D, 500, L, 400), None) < 3000


def test_the_page_is_what_the_script_writes(speed, root):
    results = root / "results"
    if not (results / "speed.json").exists():
        pytest.skip("nothing has been measured")
    measured = speed.read_json(results / "speed.json", sealed=True)
    assert (results / "speed.md").read_text() == speed.page(measured)
    assert set(measured) == set(speed.TABLES)
