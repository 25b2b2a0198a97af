"""The contract of conditionals, models and guides: what each is called with, and what it gives to an objective.

A **conditional** is a module that is called with its conditions and returns a Pyro distribution of event dimension 1:
p(x | y, z) is `p_x(y, z)`, of event shape (D,) and a batch shape that broadcasts to (..., N). Where y is summed out,
conditions have the batch shapes (K, 1) and (N,), or (K, S, N) and the like, which a conditional has to broadcast.

A **model** p and a **guide** q are modules whose sample sites stand in one `pyro.plate("data", N)`. They do not know
each other: they meet in the names of their sites.

    site          in the model                                    in the guide                                  value
    "x"           observed                                        –                                            (N, D)
    "y"           observed where y is given, else a latent        only where y is not given, and enumerated    (N, K)
    "z", "a", …   latents                                         the same latents, with `rsample`             (N, L)

Each factor is an attribute named after it: `model.p_x`, `guide.q_z`. What a model or guide can do beyond that, it
declares by an attribute or a method, and the functions of this file read it. A module that declares nothing is taken
for one with a single latent "z" and an unknown number of classes.

Shapes: N rows, D columns of x, K classes, L units of a latent, S draws. y is one-hot inside. Bounds and log-densities
are in nats per data point. `docs/write_your_own.md` writes a new model, guide, conditional and objective.
"""

from collections.abc import Callable, Mapping
from typing import Any, Protocol, runtime_checkable

from pyro.distributions import OneHotCategorical, TorchDistribution
from torch import Tensor, nn

PAGE = "docs/write_your_own.md"

Classifier = Callable[[Tensor], OneHotCategorical]  # x (N, D) → q(y | x) of batch shape (N,)


class Conditional(Protocol):
    """A module that returns a distribution given its conditions; a condition that it does not read may be None."""

    def __call__(self, *conditions: Tensor | None) -> TorchDistribution:
        """The distribution, of event dimension 1."""


class Model(Protocol):
    """A generative process p, run forward; its factors are attributes, such as `p_x`.

    It may declare `y_dim`, the number of classes, and `y_prior`, their probabilities where these are constants.
    """

    def __call__(self, x: Tensor, y: Tensor | None = None) -> object:
        """Samples the latents, and y where it is None; observes x, of which it reads nothing but length and type."""

    def __getattr__(self, name: str) -> Any:
        """A factor, or whatever else a module has."""

    def __setattr__(self, name: str, value: Any) -> None:
        """Another factor in its place."""


class Guide(Protocol):
    """An inference network q; its factors are attributes, such as `q_z`.

    It may declare `latents`, the names of its continuous latents with the main one first, and `leaves_y_to_model`:
    where y is not given it has no site "y", and the model sums y inside the logarithm.
    """

    def __call__(self, x: Tensor, y: Tensor | None = None) -> object:
        """Samples the latents, and enumerates y where it is None."""

    def encode(self, x: Tensor, site: str | None = None) -> Tensor:
        """The posterior mean of the main latent, or of the one named, (N, L), at the most probable y."""

    def __getattr__(self, name: str) -> Any:
        """A factor, or whatever else a module has."""

    def __setattr__(self, name: str, value: Any) -> None:
        """Another factor in its place."""


class ClassifyingGuide(Guide, Protocol):
    """The guide of a model with classes."""

    def classify(self, x: Tensor, num_samples: int = 1) -> OneHotCategorical:
        """q(y | x), batch shape (N,); the mean over `num_samples` draws of what the guide draws before y."""


@runtime_checkable
class Resumable(Protocol):
    """Batches that know where they stand, so that a resumed run sees the batches that a whole one would have seen."""

    def state_dict(self) -> dict[str, Any]:
        """Where they stand, in numbers and text."""

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Takes it back."""


# What a model or a guide declares


def num_classes(model: object) -> int | None:
    """K, the `y_dim` of a model; None where it declares none."""
    return getattr(model, "y_dim", None)


def declares_classes(model: object) -> bool:
    """Whether the model declares `y_dim`, also where the number of classes is None: nobody knows it."""
    return hasattr(model, "y_dim")


def class_prior(model: object) -> Tensor | None:
    """π, the K probabilities `y_prior` of a model whose p(y) is a constant; None where y depends on a latent."""
    return getattr(model, "y_prior", None)


def latents(guide: object) -> tuple[str, ...]:
    """The names of a guide's continuous latents, the main one first; ("z",) where it declares none."""
    return getattr(guide, "latents", ("z",))


def leaves_y_to_model(guide: object) -> bool:
    """Whether the guide has no site "y" where y is not given, so that the model sums y inside the logarithm."""
    return getattr(guide, "leaves_y_to_model", False)


def classifies(guide: object) -> bool:
    """Whether the guide has `classify`."""
    return callable(getattr(guide, "classify", None))


def settings(part: object) -> dict[str, Any]:
    """The attributes that a part names in `declared_settings`, those that make it what it is: name → value.

    A resumed run compares them with those of the run before. Weights are compared by their shapes and need no name.

    Raises:
        ValueError: a name that is no attribute, or a value that a checkpoint cannot hold.
    """
    kind, names = type(part).__name__, getattr(part, "declared_settings", ())
    if isinstance(names, str) or (missing := [name for name in names if not hasattr(part, name)]):
        raise ValueError(f"declared_settings of {kind} must be a tuple of names of its attributes, got {names!r}"
                         + ("" if isinstance(names, str) else f"; it has no {' and no '.join(missing)}"))  # fmt: skip
    values = {name: getattr(part, name) for name in names}
    values = {name: value.tolist() if hasattr(value, "tolist") else value for name, value in values.items()}
    if unfit := [name for name, value in values.items() if not _fits_in_a_checkpoint(value)]:
        raise ValueError(f"{unfit[0]} of {kind} must be numbers or text, as it is in declared_settings, "
                         f"got {values[unfit[0]]!r}")  # fmt: skip
    return values


def _fits_in_a_checkpoint(value: object) -> bool:
    if isinstance(value, list | tuple):
        return all(map(_fits_in_a_checkpoint, value))
    if isinstance(value, dict):
        return all(map(_fits_in_a_checkpoint, (*value, *value.values())))
    return value is None or isinstance(value, bool | int | float | str)


# What an objective or a measure needs of them


def classifier(guide: object) -> Callable[..., OneHotCategorical]:
    """The guide's `classify`.

    Raises:
        ValueError: it has none.
    """
    return _method(guide, "classify", "classify(x, num_samples=1) → OneHotCategorical of batch shape (N,)")


def encode(guide: object, x: Tensor, site: str | None = None) -> Tensor:
    """What the guide's `encode` gives for x: the posterior mean of its main latent, or of the one named, (N, L).

    Raises:
        ValueError: it has no `encode`.
    """
    method = _method(guide, "encode", "encode(x, site=None) → the posterior mean of its main latent, (N, L)")
    return method(x) if site is None else method(x, site)


def check_module(part: object, role: str, call: str = "(x, y=None)") -> None:
    """A ValueError unless a part, whose role is "model", "guide" and the like, is a module."""
    if not isinstance(part, nn.Module):
        raise ValueError(
            f"the {role} must be a torch.nn.Module that is called as {role}{call}, got {type(part).__name__}; "
            f"{PAGE} shows one"
        )


def check_factors(needed: Mapping[str, object], user: str) -> None:
    """A ValueError that names the factors that are missing.

    Args:
        needed: the factors' calls, such as "p_y(z2)", each with the model or guide that should have it.
        user: who needs them.
    """
    missing = [f"{type(part).__name__} has no {call}" for call, part in needed.items()
               if not hasattr(part, call.partition("(")[0])]  # fmt: skip
    if missing:
        raise ValueError(f"{user} needs these factors as attributes, but {' and '.join(missing)}; {PAGE} shows how")


def _method(guide: object, name: str, call: str) -> Callable[..., Any]:
    method = getattr(guide, name, None)
    if not callable(method):
        raise ValueError(f"the guide {type(guide).__name__} has no {call}; {PAGE} shows one")
    return method
