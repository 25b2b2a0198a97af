"""What is asked of numbers that a user gives: a ValueError names the argument, what it must be, and what came."""

from collections.abc import Iterable
from numbers import Integral
from typing import Any


def check_counts(least: int = 1, /, **numbers: Any) -> None:
    """A ValueError unless every number is an integer of at least `least`."""
    for name, number in numbers.items():
        if not isinstance(number, Integral) or isinstance(number, bool) or number < least:
            raise ValueError(f"{name} must be an integer of at least {least}, got {number!r}")


def check_not_negative(**numbers: Any) -> None:
    """A ValueError unless every number is at least 0."""
    for name, number in numbers.items():
        if not number >= 0:
            raise ValueError(f"{name} must not be negative, got {number!r}")


def check_positive(**numbers: Any) -> None:
    """A ValueError unless every number is above 0 and finite."""
    for name, number in numbers.items():
        if not 0 < number < float("inf"):
            raise ValueError(f"{name} must be positive and finite, got {number!r}")


def check_choice(choices: Iterable[str], /, **given: Any) -> None:
    """A ValueError unless every word is one of `choices`."""
    known = list(choices)
    for name, word in given.items():
        if word not in known:
            raise ValueError(f"{name} must be one of {', '.join(known)}, got {word!r}")


def most_classes(num_rows: int) -> int:
    """As many as there are rows, or 1,000 where there are fewer: more would fill the memory with classes of no row."""
    return max(num_rows, 1000)


def check_largest_class(name: str, largest: int, num_rows: int) -> None:
    """A ValueError where the largest class of an argument lies far above its number of rows."""
    if largest >= most_classes(num_rows):
        raise ValueError(
            f"{name} must hold classes from 0 to K-1, got {largest} in {num_rows} rows; number the classes"
        )
