"""Concurrent puts and gets of one secret."""

import time
from concurrent.futures import ThreadPoolExecutor

import pytest

from conftest import Response, Show, Stack

CALLERS = 100


@pytest.mark.parametrize("method", ["invoke", "by_http"])
def test_a_hundred_concurrent_puts_create_a_hundred_versions(
    stack: Stack, name: str, method: str, show: Show
) -> None:
    put = getattr(stack, method)

    def timed_put(number: int) -> Response:
        began = time.monotonic()
        response = put("put", {"name": name, "secret": f"caller {number}"})
        durations.append(time.monotonic() - began)
        return response

    durations: list[float] = []
    with ThreadPoolExecutor(CALLERS) as pool:
        responses = list(pool.map(timed_put, range(CALLERS)))
    show(f"slowest of {CALLERS}: {max(durations):.1f} s")
    assert [response.code for response in responses] == ["OK"] * CALLERS, {
        response.code: response for response in responses
    }
    callers = {response.body["version"]: number for number, response in enumerate(responses)}
    assert sorted(callers) == list(range(1, CALLERS + 1))
    assert [int(row["version"]) for row in stack.versions_of(name)] == sorted(callers)
    for version in (1, 50, 100):
        assert stack.get(name, version=version)["secret"] == f"caller {callers[version]}"


def test_only_one_of_many_callers_can_put_an_explicit_version(stack: Stack, name: str) -> None:
    def put(number: int) -> Response:
        return stack.invoke("put", {"name": name, "secret": f"caller {number}", "version": 1})

    with ThreadPoolExecutor(20) as pool:
        responses = list(pool.map(put, range(20)))
    codes = [response.code for response in responses]
    assert sorted(codes) == ["Exists"] * 19 + ["OK"]
    assert stack.get(name)["secret"] == f"caller {codes.index('OK')}"


def test_readers_see_complete_versions_during_concurrent_writes(stack: Stack, name: str) -> None:
    stack.put(name, "value 1")

    def write(_: int) -> str:
        return stack.invoke("put", {"name": name, "generate": {"length": 100}}).code

    def read(_: int) -> int:
        response = stack.invoke("get", {"name": name})
        assert response.code == "OK", response
        value, version = response.body["secret"], response.body["version"]
        assert len(value) == (100 if version > 1 else len("value 1"))
        return version

    with ThreadPoolExecutor(30) as pool:
        writes, reads = pool.map(write, range(40)), pool.map(read, range(80))
        assert set(writes) == {"OK"}
        assert all(1 <= version <= 41 for version in reads)
    assert stack.get(name)["version"] == 41
