"""The table of what the tests of reliability counted."""

from collections.abc import Iterable, Mapping

MARKS = ("<!-- counts -->", "<!-- end of counts -->")
Counted = tuple[str, Mapping[str, int]]  # what was tried, and how often each thing came of it


def table(counted: Iterable[Counted]) -> str:
    """A row for each of the things that were tried, in alphabetical order."""
    lines = ["| what was tried | times | what came of it |", "|---|---|---|"]
    for what, found in sorted(counted, key=lambda row: row[0]):
        told = ", ".join(
            f"{number:,} {outcome}" for outcome, number in sorted(found.items(), key=lambda item: -item[1])
        )
        lines.append(f"| {what} | {sum(found.values()):,} | {told} |")
    return "\n".join(lines)
