"""The numbers of the versions of a name, live and deleted."""

from typing import Any

from conftest import Stack


def numbers(rows: list[Any]) -> list[int]:
    """Returns the version numbers of rows of the table of secrets."""
    return [int(row["version"]) for row in rows]


def deleted_numbers(stack: Stack, name: str) -> list[int]:
    """Returns the numbers of the versions of a name that can be restored, in ascending order."""
    return sorted(int(entry["row"]["version"]) for entry in stack.entries_of(name, "deleted#"))
