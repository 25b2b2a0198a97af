"""The command line of every script: parsing flags, printing, and how wrong use and interruptions end."""

import argparse
import math
from collections.abc import Callable, Sequence
from typing import Any, NoReturn


class Parser(argparse.ArgumentParser):
    """A parser that ends wrong use with exit status 2 and one line."""

    def error(self, message: str) -> NoReturn:
        """Prints one line on standard error."""
        self.exit(2, f"{self.prog}: error: {' '.join(message.split())}\n")


class Help(argparse.ArgumentDefaultsHelpFormatter):
    """Ends the explanation of a flag with its default, where it has one."""

    def _get_help_string(self, action: argparse.Action) -> str | None:
        absent = action.default is None or action.default is False
        if absent and action.help:  # Python 3.10 adds the default itself where a flag has its --no-
            return action.help.removesuffix(" (default: %(default)s)")
        return action.help if absent else super()._get_help_string(action)


def number(kind: type, accepted: Callable[[Any], bool], wanted: str) -> Callable[[str], Any]:
    """A flag's type that reads an int or a float, and refuses numbers that are not what is wanted."""

    def read(text: str) -> Any:
        value = kind(text)
        if not accepted(value):
            raise argparse.ArgumentTypeError(f"must be {wanted}, got {text}")
        return value

    read.__name__ = kind.__name__  # argparse names it where the text is no number at all
    return read


count = number(int, lambda n: n >= 1, "at least 1")
natural = number(int, lambda n: 0 <= n < 2**63, "from 0 to 2**63 - 1")
positive = number(float, lambda value: 0 < value < math.inf, "positive and finite")
fraction = number(float, lambda value: 0 <= value < 1, "a fraction from 0 to below 1")
weight = number(float, lambda value: 0 <= value < math.inf, "finite and not negative")


def say(text: str, *, quiet: bool) -> None:
    """Prints at once, also into a file or a pipe, unless the run is to be quiet."""
    if not quiet:
        print(text, flush=True)


def command(
    parser: Parser,
    run: Callable[[argparse.Namespace], None],
    arguments: Sequence[str] | None = None,
    *,
    goes_on: str = "--resume goes on from the last whole epoch",
) -> None:
    """Parses the flags and runs a script with them.

    Wrong use of any kind ends with exit status 2 and one line, a loss that is NaN or infinite with status 1. Ctrl-C and
    SIGTERM end with a line that says what a user can do next, which is `goes_on`.
    """
    args = parser.parse_args(arguments)
    try:
        run(args)
    except (ValueError, OSError) as error:  # with the flags for the arguments of `load`
        parser.error(str(error).replace("name_or_path", "--data").replace("root= or", "--data-root or"))
    except FloatingPointError as error:
        parser.exit(1, f"{parser.prog}: {error}\n")
    except KeyboardInterrupt:
        parser.exit(130, f"\n{parser.prog}: stopped; {goes_on}\n")
    except SystemExit as stopped:
        if stopped.code is not None:
            raise
        parser.exit(143, f"{parser.prog}: stopped; {goes_on}\n")  # by SIGTERM, in fit
