"""Memory: nothing of a secret stays in the functions that handled it."""

import base64
import json
import os
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from conftest import Stack

# Seconds to wait for a function to clear its last buffer.
PATIENCE = 10

Forms = Callable[[str], set[bytes]]
NothingLeft = Callable[..., None]


def processes(function: str) -> list[Path]:
    """Returns the folders in /proc of a function's processes, which the local AWS starts."""
    wanted = f"AWS_LAMBDA_FUNCTION_NAME={function}".encode()
    found = []
    for process in Path("/proc").glob("[0-9]*"):
        try:
            if wanted in (process / "environ").read_bytes().split(b"\0"):
                found.append(process)
        except OSError:
            continue
    return found


def memory(process: Path) -> Iterator[bytes]:
    """Yields each region of memory that a process can write to."""
    with open(process / "mem", "rb", buffering=0) as mem:
        for line in (process / "maps").read_text().splitlines():
            addresses, permissions = line.split()[:2]
            if "w" not in permissions:
                continue
            start, end = (int(address, 16) for address in addresses.split("-"))
            try:
                mem.seek(start)
                yield mem.read(end - start)
            except OSError:
                continue  # A guard page.


def left_in(function: str, needles: set[bytes]) -> set[bytes]:
    """Returns those needles that are in the memory of any process of the function."""
    found = set()
    for process in processes(function):
        try:
            for region in memory(process):
                found |= {needle for needle in needles if needle in region}
        except OSError:
            continue  # The process has ended.
    return found


def forms(value: str) -> set[bytes]:
    """Returns the value as it is, escaped as JSON once and twice, and in base64.

    Also returns its end, which no escape changes, because its beginning may be overwritten.
    """
    once = json.dumps(value)[1:-1]
    twice = json.dumps(once)[1:-1]
    whole = value.encode()
    encoded = base64.b64encode(whole[: len(whole) // 3 * 3])
    return {whole, once.encode(), twice.encode(), encoded, whole[-20:]}


@pytest.fixture
def nothing_left(stack: Stack) -> NothingLeft:
    """Asserts that values are not in the memory of a function: `nothing_left(verb, *values)`."""

    def check(verb: str, *values: str, forms: Forms = forms) -> None:
        function = stack.functions[verb]
        if not processes(function):
            pytest.skip("the functions are not dumpable: only root can read their memory")
        # The name of the table stays in memory. Finding it shows that the search works.
        table = stack.table.encode()
        assert left_in(function, {table}) == {table}
        # The function clears its last buffer once the runtime has confirmed the response, shortly
        # after the caller receives it.
        end = time.monotonic() + PATIENCE
        needles = set().union(*map(forms, values))
        while (left := left_in(function, needles)) and time.monotonic() < end:
            time.sleep(0.1)
        assert not left

    return check


def fresh_value() -> str:
    """Returns 40 unique bytes with a quote and a backslash, which JSON escapes."""
    value = f'v-"\\{os.urandom(18).hex()}'
    assert len(value) == 40
    return value


@pytest.mark.parametrize("fields", [{}, {"format": "text"}], ids=["json", "text"])
def test_a_get_leaves_nothing_of_the_value_in_memory(
    stack: Stack, nothing_left: NothingLeft, name: str, fields: dict[str, Any]
) -> None:
    value = fresh_value()
    stack.put(name, value)
    for origin, response in stack.both("get", {"name": name, **fields}):
        assert response.code == "OK", origin
        nothing_left("get", value)


@pytest.mark.parametrize("fields", [{}, {"format": "json"}, {"format": "yaml"}], ids=str)
def test_a_bundle_leaves_nothing_of_its_values_in_memory(
    stack: Stack, nothing_left: NothingLeft, name: str, fields: dict[str, Any]
) -> None:
    values = {f"{name}/{number}": fresh_value() for number in range(4)}
    stack.done("put", prefix=name, secrets=values)
    for origin, response in stack.both("get", {"prefix": name, **fields}):
        assert response.code == "OK", origin
        nothing_left("get", *values.values())


def plain(value: str) -> set[bytes]:
    """Returns only the value as it is.

    A request contains it escaped or in base64, and stays in the buffer of the runtime's connection
    until the next request arrives.
    """
    return {value.encode()}


def test_a_put_leaves_nothing_of_the_value_in_memory(
    stack: Stack, nothing_left: NothingLeft, name: str
) -> None:
    text, octets = fresh_value(), fresh_value()
    encoded = base64.b64encode(octets.encode()).decode()
    for request, value in (({"secret": text}, text), ({"secret_base64": encoded}, octets)):
        for origin, response in stack.both("put", {"name": name, **request}):
            assert response.code == "OK", origin
            nothing_left("put", value, forms=plain)
