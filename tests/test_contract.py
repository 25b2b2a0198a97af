"""Every model and guide keeps the contract, and declares what a run of it shows; what is missing is named.

`broken` runs model and guide, looks at what their sites are, and says which clauses of `contract.py` they break: none
for a paper, and the right one for each wrong declaration that is planted here.
"""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyro
import pytest
import torch
from pyro import poutine
from pyro.distributions import Normal, OneHotCategorical
from pyro.distributions.testing.fakes import NonreparameterizedNormal
from pyro.poutine.util import prune_subsample_sites
from semipyro import contract
from semipyro.data import batches
from semipyro.distributions import StandardNormal, central_value, most_probable
from semipyro.guides import CaGeMGuide, M2Guide, ReverseGuide, VAEGuide
from semipyro.inference import (
    ELBO,
    ClusterAwareELBO,
    InvertedELBO,
    Objective,
    SemiSupervisedELBO,
    active_units,
    cascade,
    evaluate,
    log_likelihood,
    sample,
)
from semipyro.inference.evaluation.features import features
from semipyro.inference.training.run import Run, Settings
from semipyro.models import M2, CaGeM, LatentClassifier
from semipyro.papers import CLASSIFYING, PAPERS
from semipyro.plots import class_samples, latent_space
from torch import Tensor, nn

ROOT = Path(__file__).resolve().parent.parent
N, D, K, L = 5, 7, 3, 2
X = torch.tensor([[float((i * j) % 3 == 1) for j in range(D)] for i in range(1, N + 1)])  # suits every likelihood
Y = torch.eye(K)[torch.arange(N) % K]
Sites = dict[str, Any]


def small(name: str) -> Objective:
    """A paper's objective; weights of 0.3, so that every distribution depends on what it reads."""
    torch.manual_seed(0)
    objective = PAPERS[name].build(D, K, z_dim=L, hidden=(4,), activation="softplus")
    for parameter in objective.parameters():
        nn.init.normal_(parameter, std=0.3)
    return objective.eval()


def sites(program: Callable[..., Any], *given: Any) -> Sites:
    """The sample sites of one run from a fixed seed, by name."""
    torch.manual_seed(1)
    with torch.no_grad():
        trace = prune_subsample_sites(poutine.trace(program).get_trace(*given))
    return {name: node for name, node in trace.nodes.items() if node["type"] == "sample"}


# What a run shows, clause by clause


def continuous(found: Sites) -> set[str]:
    return {name for name, site in found.items() if name != "y" and not site["is_observed"]}


def keeps_plate(found: Sites) -> bool:
    """Every site is a batch of N rows of event dimension 1 in one plate, "data"."""
    plates = [[(frame.name, frame.size, frame.dim) for frame in site["cond_indep_stack"]] for site in found.values()]
    shapes = [(site["fn"].batch_shape, site["fn"].event_dim) for site in found.values()]
    return all(each == [("data", N, -1)] for each in plates) and all(each == ((N,), 1) for each in shapes)


def keeps_x(model: nn.Module, p: Sites) -> bool:
    """The model observes x, and draws the same things where x has no columns at all: it is a generator."""
    drawn, forward = (sites(poutine.uncondition(model), x) for x in (X, X.new_empty(N, 0)))
    same = all(torch.equal(site["value"], forward[name]["value"]) for name, site in drawn.items())
    return p["x"]["is_observed"] and torch.equal(p["x"]["value"], X) and same


def keeps_y(guide: nn.Module, p: Sites, q: Sites, p_given: Sites, q_given: Sites) -> bool:
    """Given, y is observed by the model; not given, it is latent, and the guide's, enumerated, unless it leaves it."""
    if "y" not in p:
        return "y" not in q and not contract.leaves_y_to_model(guide)
    given = p_given["y"]["is_observed"] and torch.equal(p_given["y"]["value"], Y) and "y" not in q_given
    if contract.leaves_y_to_model(guide):
        return given and not p["y"]["is_observed"] and "y" not in q
    return given and not p["y"]["is_observed"] and "y" in q and q["y"]["infer"].get("enumerate") == "parallel"


def keeps_latents(guide: nn.Module, *runs: Sites) -> bool:
    """The declared latents are the continuous ones of model and guide, and the guide's have `rsample`."""
    declared = contract.latents(guide)
    names = all(continuous(run) == set(declared) for run in runs)
    return names and all(run[name]["fn"].has_rsample for run in runs[1::2] for name in declared)


def keeps_encode(guide: nn.Module) -> bool:
    """`encode` is the mean of a site's distribution, the others at theirs and y the most probable; first the main."""
    declared = contract.latents(guide)
    try:
        means = {name: contract.encode(guide, X, name) for name in declared}
    except ValueError:  # it has no such site
        return False
    fixed = poutine.condition(guide, means)
    q = sites(fixed, X)
    q = sites(fixed, X, most_probable(q["y"]["fn"])) if "y" in q else q
    if not set(declared) <= q.keys():
        return False
    same = all(torch.allclose(central_value(q[name]["fn"]), means[name], atol=1e-6) for name in declared)
    return same and torch.equal(contract.encode(guide, X), means[declared[0]])


def keeps_classify(model: nn.Module, guide: nn.Module, *, labelled: bool) -> bool:
    """`classify` is there for a model with classes, and is the distribution of y at the same draws of what precedes."""
    if not contract.classifies(guide) or not labelled:
        return contract.classifies(guide) == labelled
    torch.manual_seed(1)
    q_y = guide.classify(X)
    torch.manual_seed(1)
    drawn = poutine.trace(guide).get_trace(X)
    nodes = drawn.nodes if "y" in drawn.nodes else poutine.trace(poutine.replay(model, drawn)).get_trace(X).nodes
    shape = q_y.batch_shape == (N,) and guide.classify(X, num_samples=3).batch_shape == (N,)
    return shape and torch.allclose(q_y.probs, nodes["y"]["fn"].probs, atol=1e-6)


def keeps_prior(model: nn.Module, p: Sites) -> bool:
    """`y_prior` is the distribution of y where that is the same whatever the latents are, and None elsewhere."""
    prior = contract.class_prior(model)
    if "y" not in p:
        return prior is None
    probs = p["y"]["fn"].probs
    constant = torch.allclose(probs, probs[:1].expand_as(probs), atol=1e-6)
    return (prior is not None) == constant and (not constant or torch.allclose(probs[0], prior))


def keeps_factors(model: nn.Module, guide: nn.Module, p: Sites, q: Sites) -> bool:
    """p(s | ·) of each site s is called as `model.p_s`, but for a constant p(y), and q(s | ·) as `guide.q_s`."""
    shared = {"p_y"} if getattr(guide, "p_y", None) is getattr(model, "p_y", guide) else set()
    wanted = [(model, f"p_{name}") for name in p if name != "y" or contract.class_prior(model) is None]
    wanted += [(guide, f"q_{name}" if f"p_{name}" not in shared else f"p_{name}") for name in q]
    if any(not isinstance(getattr(part, name, None), nn.Module) for part, name in wanted):
        return False
    factors = [getattr(part, name) for part, name in wanted]
    called: list[nn.Module] = []
    hooks = [factor.register_forward_hook(lambda factor, *_: called.append(factor)) for factor in factors]
    sites(model, X)
    sites(guide, X)
    for hook in hooks:
        hook.remove()
    return set(called) == set(factors)


def broken(model: nn.Module, guide: nn.Module, *, labelled: bool) -> set[str]:
    """The clauses of the contract that model and guide break; `labelled` where the model has classes."""
    p, q = sites(model, X), sites(guide, X)
    p_given, q_given = (sites(model, X, Y), sites(guide, X, Y)) if labelled else (p, q)
    kept = {
        "plate": all(keeps_plate(run) for run in (p, q, p_given, q_given)),
        "x": keeps_x(model, p),
        "y": keeps_y(guide, p, q, p_given, q_given),
        "y_dim": contract.num_classes(model) == (p["y"]["fn"].event_shape[0] if "y" in p else None),
        "y_prior": keeps_prior(model, p),
        "latents": keeps_latents(guide, p, q, p_given, q_given),
        "encode": keeps_encode(guide),
        "classify": keeps_classify(model, guide, labelled=labelled),
        "factors": keeps_factors(model, guide, p, q),
    }
    return {clause for clause, is_kept in kept.items() if not is_kept}


@pytest.mark.parametrize("name", PAPERS)
def test_every_paper_keeps_the_contract(name):
    objective = small(name)
    assert broken(objective.model, objective.guide, labelled=PAPERS[name].classifies) == set()


def test_the_reverse_process_stands_in_the_plate_too():
    """It observes y and z and draws x, so the other clauses are not for it."""
    objective = small("untapped")
    drawn = sites(objective.model, X)
    given = drawn["y"]["value"], drawn["z"]["value"]
    p, q = sites(objective.reverse_model, *given), sites(objective.reverse_guide, *given)
    assert keeps_plate(p)
    assert keeps_plate(q)
    assert {name for name, site in p.items() if not site["is_observed"]} == q.keys() == {"x"}


# Wrong ones, planted


class Careless(nn.Module):
    """M2's guide, with mistakes to choose from."""

    latents = ("z",)

    def __init__(self, right, *, plate="data", enumerate="parallel", always_y=False, noisy=False):
        super().__init__()
        self.q_y, self.q_z, self.encode, self.classify = right.q_y, right.q_z, right.encode, right.classify
        self.plate, self.enumerate, self.always_y, self.noisy = plate, enumerate, always_y, noisy

    def forward(self, x, y=None):
        with pyro.plate(self.plate, len(x)):
            if y is None or self.always_y:
                y = pyro.sample("y", self.q_y(x), infer={"enumerate": self.enumerate})
            q_z = self.q_z(x, y)
            if self.noisy:
                q_z = NonreparameterizedNormal(q_z.base_dist.loc, q_z.base_dist.scale).to_event(1)
            pyro.sample("z", q_z)


class ReadsX(M2):
    """A model that is no generator: z depends on x."""

    def forward(self, x, y=None):
        with pyro.plate("data", len(x)):
            y = pyro.sample("y", OneHotCategorical(self.y_prior), obs=y)
            z = pyro.sample("z", Normal(self.p_z().mean + x.sum(-1, keepdim=True), 1.0).to_event(1))
            pyro.sample("x", self.p_x(y, z), obs=x)


class ReadsNoFactor(M2):
    """A model whose p(y) and p(z) are not those that it declares."""

    def forward(self, x, y=None):
        with pyro.plate("data", len(x)):
            y = pyro.sample("y", OneHotCategorical(torch.tensor([0.5, 0.3, 0.2])), obs=y)
            z = pyro.sample("z", Normal(torch.zeros(L), 1.0).to_event(1))
            pyro.sample("x", self.p_x(y, z), obs=x)


class Uniform(nn.Module):
    """A distribution of y that is the same for all rows, as a conditional."""

    def forward(self, *conditions):
        return OneHotCategorical(torch.full((K,), 1 / K))


def with_guide(**mistakes: Any) -> Callable[[Objective], None]:
    return lambda objective: setattr(objective, "guide", Careless(objective.guide, **mistakes))


def declaring(role: str, **values: Any) -> Callable[[Objective], None]:
    def plant(objective: Objective) -> None:
        for name, value in values.items():
            part = getattr(objective, role)
            part._modules.pop(name, None)
            part._buffers.pop(name, None)
            part.__dict__[name] = value

    return plant


def with_model(kind: type[M2]) -> Callable[[Objective], None]:
    return lambda objective: setattr(objective.model, "__class__", kind)


def q_z_as_a_function(objective: Objective) -> None:
    q_z = objective.guide.q_z
    declaring("guide", q_z=lambda x, y: q_z(x, y))(objective)


def uniform(x: Tensor, num_samples: int = 1) -> OneHotCategorical:
    return OneHotCategorical(torch.full((len(x), K), 1 / K))


PLANTED: dict[str, tuple[str, Callable[[Objective], None], set[str]]] = {
    "none": ("m2", with_guide(), set()),
    "another plate": ("m2", with_guide(plate="rows"), {"plate"}),
    "y not enumerated": ("m2", with_guide(enumerate=None), {"y"}),
    "y enumerated in turn": ("m2", with_guide(enumerate="sequential"), {"y"}),
    "y drawn where it is given": ("m2", with_guide(always_y=True), {"y", "encode"}),
    "no rsample": ("m2", with_guide(noisy=True), {"latents"}),
    "a model that reads x": ("m2", with_model(ReadsX), {"x"}),
    "a model that is not what it declares": ("m2", with_model(ReadsNoFactor), {"y_prior", "factors"}),
    "another latent": ("m2", declaring("guide", latents=("a",)), {"latents", "encode"}),
    "a latent too many": ("m2", declaring("guide", latents=("z", "a")), {"latents", "encode"}),
    "a latent too few": ("adgm", declaring("guide", latents=("z",)), {"latents", "encode"}),
    "the main latent second": ("adgm", declaring("guide", latents=("a", "z")), {"encode"}),
    "the main latent second, CaGeM": ("cagem", declaring("guide", latents=("z1", "z2")), {"encode"}),
    "y said to be the model's": ("m2", declaring("guide", leaves_y_to_model=True), {"y"}),
    "y of a VAE": ("m1", declaring("guide", leaves_y_to_model=True), {"y"}),
    "y of a VAE's model": ("m1", declaring("model", y_dim=K), {"y_dim"}),
    "another K": ("m2", declaring("model", y_dim=K + 1), {"y_dim"}),
    "no K": ("cagem", declaring("model", y_dim=None), {"y_dim"}),
    "another prior, which is the model's": ("m2", declaring("model", y_prior=torch.tensor([0.5, 0.3, 0.2])), set()),
    "a prior beside p(y | z)": ("latent-classifier", declaring("model", y_prior=torch.full((K,), 1 / K)),
                                {"y_prior"}),
    "p(y | z) that is constant": ("cagem", declaring("model", p_y=Uniform()), {"y_prior"}),
    "no classify": ("adgm", declaring("guide", classify=None), {"classify"}),
    "classify of a VAE": ("m1", declaring("guide", classify=uniform), {"classify"}),
    "another classify": ("adgm", declaring("guide", classify=uniform), {"classify"}),
    "another encode": ("m2", declaring("guide", encode=lambda x, site=None: torch.zeros(len(x), L)), {"encode"}),
    "a factor that is no module": ("gm-dgm", q_z_as_a_function, {"factors"}),
}  # fmt: skip


@pytest.mark.parametrize("what", PLANTED)
def test_what_is_planted_is_found(what):
    name, plant, expected = PLANTED[what]
    objective = small(name)
    plant(objective)
    assert broken(objective.model, objective.guide, labelled=PAPERS[name].classifies) == expected


# What is declared, and what where nothing is


class Plain(nn.Module):
    """A program that declares nothing."""

    def __init__(self, program):
        super().__init__()
        self.program = program

    def forward(self, x, y=None):
        self.program(x, y)


def test_what_declares_nothing():
    for part in (nn.Module(), object()):
        assert contract.num_classes(part) is None
        assert contract.class_prior(part) is None
        assert contract.latents(part) == ("z",)
        assert contract.leaves_y_to_model(part) is False
        assert contract.classifies(part) is False
        assert contract.settings(part) == {}


@pytest.mark.parametrize("name", ["m2", "adgm", "gm-dgm", "latent-classifier"])
def test_bounds_need_no_declaration(name):
    """Bounds and the importance-weighted bound are the same where nothing is declared; the accuracy is left out."""
    objective = small(name)
    plain = SemiSupervisedELBO(Plain(objective.model), Plain(objective.guide)).eval()
    found = []
    for each in (objective, plain):
        torch.manual_seed(1)
        bounds = [each.bound(X).item(), each.bound(X, Y).item()]
        torch.manual_seed(1)
        found.append([*bounds, *log_likelihood(each.model, each.guide, X, num_samples=3).tolist()])
    assert found[0] == found[1]
    assert evaluate(plain, X, Y.argmax(1)).keys() == {"unlabelled"}
    assert "accuracy" in evaluate(objective, X, Y.argmax(1))


@pytest.mark.parametrize("name", PAPERS)
def test_settings_are_plain_values_that_a_resumed_run_compares(name):
    """Each declared value is there, is written as it is read, and if it is another one, the run is another one."""
    objective = small(name)
    compared = run_of(objective).compared()
    assert json.loads(json.dumps(compared)) == compared
    for path, part in objective.named_modules():
        where = f"objective.{path}".rstrip(".")
        for setting, value in contract.settings(part).items():
            assert compared[f"{where}.{setting}"] == value
            assert not isinstance(value, Tensor)
    assert any(contract.settings(part) for part in objective.modules())


def test_a_setting_that_differs_is_compared():
    before = run_of(small("m2")).compared()
    other = small("m2")
    other.kl_weight.fill_(0.5)
    other.model.y_prior.copy_(torch.tensor([0.5, 0.25, 0.25]))
    other.model.p_x.declared_settings = ("name",)
    other.model.p_x.name = "new"
    other.model.undeclared = 3
    after = run_of(other).compared()
    assert {name for name in before.keys() | after.keys() if before.get(name) != after.get(name)} == {
        "objective.kl_weight", "objective.model.y_prior", "objective.model.p_x.name",
    }  # fmt: skip
    assert after["objective.model.y_prior"] == [0.5, 0.25, 0.25]
    other.model.p_x.declared_settings = ("no_such_attribute",)
    with pytest.raises(ValueError, match="no_such_attribute"):
        run_of(other).compared()


def run_of(objective: Objective) -> Run:
    """A run with the rows at hand."""
    return Run(
        objective=objective, batches=batches(X, Y.argmax(1), labelled_batch_size=2, unlabelled_batch_size=2,
                                             include_labelled=True),
        settings=Settings(epochs=1), optimizer=torch.optim.Adam, schedule=None, validation=None,
        validation_bound_x=None, monitor=None, folder=None, metrics_file=None, report=None,
    )  # fmt: skip


def test_batches_know_where_they_stand():
    rows = batches(X, Y.argmax(1), labelled_batch_size=2, unlabelled_batch_size=2, include_labelled=True)
    assert isinstance(rows, contract.Resumable)
    assert not isinstance([(X, Y, X)], contract.Resumable)


# What is missing is named, with the page that shows it


def shows_page(error: Any, *words: str) -> None:
    message = str(error.value)
    assert contract.PAGE in message
    assert [word for word in words if word not in message] == []


def test_the_page_is_there():
    assert (ROOT / contract.PAGE).is_file()


def test_a_guide_without_classify():
    m2, m1 = small("m2"), small("m1")
    with pytest.raises(ValueError, match="^the guide VAEGuide has no classify\\(x, num_samples=1\\)") as error:
        SemiSupervisedELBO(m2.model, m1.guide)(X, Y, None)
    shows_page(error, "OneHotCategorical", "(N,)")
    m2.guide.classify = None  # an attribute, and no method
    with pytest.raises(ValueError, match="^the guide M2Guide has no classify") as error:
        contract.classifier(m2.guide)
    shows_page(error)
    guide = small("m2").guide
    assert contract.classifier(guide) == guide.classify


@pytest.mark.parametrize(
    "use",
    [
        lambda guide: contract.encode(guide, X),
        lambda guide: contract.encode(guide, X, "z"),
        lambda guide: active_units(guide, X),
        lambda guide: latent_space(guide, X, Y.argmax(1)),
    ],
    ids=["encode", "encode of a site", "active_units", "latent_space"],
)
def test_a_guide_without_encode(use):
    with pytest.raises(ValueError, match="^the guide ReverseGuide has no encode\\(x, site=None\\)") as error:
        use(ReverseGuide(p_x=StandardNormal(D)))
    shows_page(error, "(N, L)")


@pytest.mark.parametrize("name", PAPERS)
def test_a_latent_that_a_guide_does_not_have(name):
    guide = small(name).guide
    with pytest.raises(ValueError, match="got 'no such site'") as error:
        contract.encode(guide, X, "no such site")
    assert all(site in str(error.value) for site in contract.latents(guide))


@pytest.mark.parametrize("objective", [ELBO, SemiSupervisedELBO])
@pytest.mark.parametrize("role", ["model", "guide"])
@pytest.mark.parametrize(("part", "kind"), [(lambda x, y=None: None, "function"), (None, "NoneType"), (M2, "type")])
def test_a_part_that_is_no_module(objective, role, part, kind):
    right = small("m2")
    parts = {"model": right.model, "guide": right.guide, role: part}
    with pytest.raises(ValueError, match=f"^the {role} must be a torch.nn.Module") as error:
        objective(**parts)
    shows_page(error, f"{role}(x, y=None)", f"got {kind};")


FACTORS = [
    *(("cagem", *each) for each in [
        ("model", "p_y(z2)"), ("guide", "q_z1(x)"), ("guide", "q_y(z1, x)"), ("guide", "q_z2(x, y, z1)"),
    ]),
    *(("untapped", *each) for each in [
        ("model", "p_x(y, z)"), ("model", "p_z()"), ("model", "y_prior"), ("guide", "q_z(x, y)"),
    ]),
]  # fmt: skip


@pytest.mark.parametrize(("name", "role", "call"), FACTORS)
def test_a_factor_that_is_missing(name, role, call):
    """The one that is missing, and whose it is; none of the others."""
    objective = small(name)
    part = getattr(objective, role)
    delattr(part, call.partition("(")[0])
    with pytest.raises(ValueError, match=f"^{type(objective).__name__} needs these factors") as error:
        again(objective)
    shows_page(error, f"{type(part).__name__} has no {call};")
    assert [other for paper, _, other in FACTORS if paper == name and other in str(error.value)] == [call]


def test_several_factors_that_are_missing():
    m2 = small("m2")
    with pytest.raises(ValueError, match="^ClusterAwareELBO needs") as error:
        ClusterAwareELBO(m2.model, m2.guide)
    shows_page(error, "M2 has no p_y(z2) and M2Guide has no q_z1(x) and M2Guide has no q_z2(x, y, z1);")


@pytest.mark.parametrize("name", ["cagem", "untapped"])
def test_nothing_is_said_to_be_missing_where_all_is_there(name):
    assert type(again(small(name))) is type(small(name))


def again(objective: Objective) -> Objective:
    """The same objective, made anew of the same parts."""
    if isinstance(objective, ClusterAwareELBO):
        return ClusterAwareELBO(objective.model, objective.guide)
    reverse = {"reverse_model": objective.reverse_model, "reverse_guide": objective.reverse_guide}
    return InvertedELBO(objective.model, objective.guide, **reverse)


def test_every_classifying_paper_is_tried_with_labels():
    """The rows above say themselves whether they classify; these are all but M1."""
    assert set(PAPERS) - set(CLASSIFYING) == {"m1"}
    assert {type(small(name).guide) for name in PAPERS} >= {VAEGuide, M2Guide, CaGeMGuide}
    assert {type(small(name).model) for name in PAPERS} >= {M2, CaGeM, LatentClassifier}


@pytest.mark.parametrize(
    ("declared", "message"),
    [
        ("scale", "must be a tuple of names of its attributes, got 'scale'"),
        (("scale", "bias"), "must be a tuple of names .*; it has no bias"),
        (("part",), "part of Declares must be numbers or text"),
    ],
)
def test_settings_that_are_declared_wrongly(declared, message):
    class Declares(nn.Module):
        declared_settings = declared
        scale = 1.0
        part = nn.Identity()

    with pytest.raises(ValueError, match=message):
        contract.settings(Declares())


def test_an_objective_without_terms():
    class Misspelt(Objective):
        def unlabeled_terms(self, x):
            return {"unlabelled": self.bound(x)}

    m2 = small("m2")
    for kind in (Objective, Misspelt):
        with pytest.raises(TypeError, match=f"{kind.__name__} has no terms: .*unlabelled_terms"):
            kind(m2.model, m2.guide)


class WithoutX(nn.Module):
    def forward(self, x, y=None):
        with pyro.plate("data", len(x)):
            pyro.sample("z", StandardNormal(2)())


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: sample(WithoutX(), 3), "the model has no site x, only z"),
        (lambda: cascade(small("m2").model, small("m2").guide), "cascade needs .*no q_z1"),
        (lambda: features(small("cagem"), X), "features needs .*no q_z"),
        (lambda: class_samples(small("m1").model, K, (D,)), "the model has no site y, only z, x"),
        (lambda: class_samples(small("cagem").model, K + 1, (D,)), f"num_classes must be {K}.*got {K + 1}"),
        (lambda: class_samples(small("cagem").model, K - 1, (D,)), f"num_classes must be {K}.*got {K - 1}"),
    ],
)
def test_a_part_that_is_missing_is_named(call, message):
    with pytest.raises(ValueError, match=message):
        call()
