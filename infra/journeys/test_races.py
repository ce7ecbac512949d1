"""Many at once."""

import time
from concurrent.futures import ThreadPoolExecutor

import pytest

CALLERS = 100


@pytest.mark.parametrize("door", ["invoke", "by_http"])
def test_a_hundred_callers_get_a_hundred_versions(stack, name, door, show):
    put = getattr(stack, door)

    def one(number):
        began = time.monotonic()
        answer = put("put", {"name": name, "secret": f"caller {number}"})
        slowest.append(time.monotonic() - began)
        return answer

    slowest = []
    with ThreadPoolExecutor(CALLERS) as pool:
        answers = list(pool.map(one, range(CALLERS)))
    show(f"slowest of {CALLERS}: {max(slowest):.1f} s")
    assert [answer.code for answer in answers] == ["OK"] * CALLERS, {
        answer.code: answer for answer in answers
    }
    versions = {answer.body["version"]: number for number, answer in enumerate(answers)}
    assert sorted(versions) == list(range(1, CALLERS + 1))
    assert [int(row["version"]) for row in stack.versions_of(name)] == sorted(versions)
    for version in (1, 50, 100):
        assert stack.get(name, version=version)["secret"] == f"caller {versions[version]}"


def test_one_of_many_gets_an_explicit_version(stack, name):
    def one(number):
        return stack.invoke("put", {"name": name, "secret": f"caller {number}", "version": 1})

    with ThreadPoolExecutor(20) as pool:
        answers = list(pool.map(one, range(20)))
    codes = [answer.code for answer in answers]
    assert sorted(codes) == ["Exists"] * 19 + ["OK"]
    assert stack.get(name)["secret"] == f"caller {codes.index('OK')}"


def test_readers_see_whole_versions_while_writers_write(stack, name):
    stack.put(name, "value 1")

    def write(_):
        return stack.invoke("put", {"name": name, "generate": {"length": 100}}).code

    def read(_):
        answer = stack.invoke("get", {"name": name})
        assert answer.code == "OK", answer
        value, version = answer.body["secret"], answer.body["version"]
        assert len(value) == (100 if version > 1 else len("value 1"))
        return version

    with ThreadPoolExecutor(30) as pool:
        writes, reads = pool.map(write, range(40)), pool.map(read, range(80))
        assert set(writes) == {"OK"}
        assert all(1 <= version <= 41 for version in reads)
    assert stack.get(name)["version"] == 41
