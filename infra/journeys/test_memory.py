"""What is left of a secret in the memory of the functions that read and answered it."""

import base64
import json
import os
import time
from pathlib import Path

import pytest

PATIENCE = 10


def processes(function):
    """The processes of a function, which are children of the local AWS."""
    wanted = f"AWS_LAMBDA_FUNCTION_NAME={function}".encode()
    found = []
    for place in Path("/proc").glob("[0-9]*"):
        try:
            if wanted in (place / "environ").read_bytes().split(b"\0"):
                found.append(place)
        except OSError:
            continue
    return found


def memory(place):
    """All that a process can write to, region by region."""
    with open(place / "mem", "rb", buffering=0) as mem:
        for line in (place / "maps").read_text().splitlines():
            addresses, permissions = line.split()[:2]
            if "w" not in permissions:
                continue
            start, end = (int(address, 16) for address in addresses.split("-"))
            try:
                mem.seek(start)
                yield mem.read(end - start)
            except OSError:
                continue  # A guard page.


def left_in(function, needles):
    """Which of these are in the memory of any process of the function."""
    found = set()
    for place in processes(function):
        try:
            for region in memory(place):
                found |= {needle for needle in needles if needle in region}
        except OSError:
            continue  # The process has ended.
    return found


def forms(value):
    """The value as it is, as JSON escapes it, as JSON in JSON does, and in base64; and its end,
    which no escape changes, for its beginning may have been written over."""
    once = json.dumps(value)[1:-1]
    twice = json.dumps(once)[1:-1]
    whole = value.encode()
    encoded = base64.b64encode(whole[: len(whole) // 3 * 3])
    return {whole, once.encode(), twice.encode(), encoded, whole[-20:]}


@pytest.fixture
def nothing_left(stack):
    """Asserts that values are nowhere in the processes of a function."""

    def check(verb, *values, forms=forms):
        function = stack.functions[verb]
        if not processes(function):
            pytest.skip("the functions are not dumpable: only root reads their memory")
        # What is kept is found, so what is not found is gone.
        table = stack.table.encode()
        assert left_in(function, {table}) == {table}
        # The function's last buffer goes when the runtime has confirmed the answer, a moment after
        # the caller has it.
        end = time.monotonic() + PATIENCE
        needles = set().union(*map(forms, values))
        while (left := left_in(function, needles)) and time.monotonic() < end:
            time.sleep(0.1)
        assert not left

    return check


def fresh_value():
    """40 bytes that nothing else holds, with a quote and a backslash to be escaped."""
    value = f'v-"\\{os.urandom(18).hex()}'
    assert len(value) == 40
    return value


@pytest.mark.parametrize("more", [{}, {"format": "text"}], ids=["json", "text"])
def test_a_get_leaves_nothing_of_the_value_behind(stack, nothing_left, name, more):
    value = fresh_value()
    stack.put(name, value)
    for origin, answer in stack.both("get", {"name": name, **more}):
        assert answer.code == "OK", origin
        nothing_left("get", value)


@pytest.mark.parametrize("more", [{}, {"format": "json"}, {"format": "yaml"}], ids=str)
def test_a_bundle_leaves_nothing_of_its_values_behind(stack, nothing_left, name, more):
    values = {f"{name}/{number}": fresh_value() for number in range(4)}
    stack.done("put", prefix=name, secrets=values)
    for origin, answer in stack.both("get", {"prefix": name, **more}):
        assert answer.code == "OK", origin
        nothing_left("get", *values.values())


def read(value):
    """The value as it is, which no event holds: an event has it escaped or in base64, and stays in
    the buffer of the runtime's connection until the next one comes."""
    return {value.encode()}


def test_a_put_leaves_nothing_of_the_value_behind(stack, nothing_left, name):
    text, octets = fresh_value(), fresh_value()
    encoded = base64.b64encode(octets.encode()).decode()
    for request, value in (({"secret": text}, text), ({"secret_base64": encoded}, octets)):
        for origin, answer in stack.both("put", {"name": name, **request}):
            assert answer.code == "OK", origin
            nothing_left("put", value, forms=read)
