"""A table of 5,000 names: lists are complete, and the number of calls does not grow."""

import base64
import random
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest

from conftest import Faults, Stack

NAMES = 5000
DEEP = 20
VERSIONS = 200


@pytest.fixture(scope="module")
def large(stack: Stack) -> int:
    """Writes 5,000 names, 20 of them with 200 versions each, and returns the number of rows.

    Lists do not decrypt, so the rows are copies of one that put wrote, with values of many sizes.
    """
    sealed = stack.row(stack.put("model", "s")["name"])
    random.seed(7)
    rows = []
    for number in range(NAMES):
        name = f"large/{number % 7}/{number:05}"
        for version in range(1, (VERSIONS if number % (NAMES // DEEP) == 0 else 1) + 1):
            contents = "A" * (4 * random.choice([1, 10, 100, 2000]))
            row = {**sealed, "name": name, "version": f"{version:019}", "contents": contents}
            rows.append({**row, "comment": f"{number} {version}"})
    random.shuffle(rows)

    def write(chunk: list[dict[str, Any]]) -> None:
        with stack.rows.batch_writer() as batch:
            for row in chunk:
                batch.put_item(Item=row)

    with ThreadPoolExecutor(8) as pool:
        list(pool.map(write, [rows[start::40] for start in range(40)]))
    return len(rows)


@pytest.mark.parametrize("limit", [100, 1000, 7])
def test_list_pages_return_every_name_exactly_once(stack: Stack, large: int, limit: int) -> None:
    prefix = "large" if limit > 7 else "large/3"
    expected = {
        f"large/{number % 7}/{number:05}": VERSIONS if number % (NAMES // DEEP) == 0 else 1
        for number in range(NAMES)
        if limit > 7 or number % 7 == 3
    }
    found = []
    for page in stack.each_page("list", patient=True, prefix=prefix, limit=limit):
        assert len(page["secrets"]) <= limit
        assert "next" not in page or len(page["secrets"]) == limit
        found += page["secrets"]
    assert len(found) == len(expected)
    assert {entry["name"]: entry["version"] for entry in found} == expected
    deep = next(entry for entry in found if entry["version"] == VERSIONS)
    assert deep["comment"] == f"{int(deep['name'][-5:])} {VERSIONS}"


def test_a_list_without_a_prefix_returns_every_name(stack: Stack, large: int) -> None:
    names = [entry["name"] for entry in stack.pages("list", "secrets", patient=True, limit=1000)]
    assert len(names) == len(set(names))
    assert sum(name.startswith("large/") for name in names) == NAMES


def test_a_cursor_reveals_no_name_outside_the_prefix(stack: Stack, large: int) -> None:
    for page in stack.each_page("list", patient=True, prefix="large/3", limit=50):
        if "next" in page:
            padded = page["next"] + "=" * (-len(page["next"]) % 4)
            assert b"large/3/" in base64.urlsafe_b64decode(padded)


@pytest.mark.parametrize("limit", [200, 100, 30, 1000])
def test_versions_are_paged_newest_first(stack: Stack, large: int, limit: int) -> None:
    found = []
    for page in stack.each_page("list", patient=True, name="large/0/00000", limit=limit):
        assert len(page["versions"]) <= limit
        found += [entry["version"] for entry in page["versions"]]
    assert found == list(range(VERSIONS, 0, -1))


def test_the_number_of_calls_does_not_grow_with_the_table(
    stack: Stack, large: int, faults: Faults, name: str
) -> None:
    for version in range(1, 21):
        stack.put(name, f"value {version}")
    revision = stack.get(name, version=5)["revision"]
    faults.calls()
    # An environment that starts may open its connections with a ping. Operations make no pings.
    pings = {"dynamodb:", "kms:"}

    def calls() -> dict[str, int]:
        return {call: count for call, count in faults.calls().items() if call not in pings}

    for request in (
        {},
        {"version": 20},
        {"version": 3},
        {"stage": "AWSPREVIOUS"},
        {"revision": revision},
    ):
        stack.get(name, **request)
        assert calls() == {"dynamodb:Query": 1, "kms:Decrypt": 1}, request
    stack.put(name, "one more")
    # One query for the highest version and one for the chain head, in parallel.
    written = {"kms:GenerateDataKey": 1, "dynamodb:TransactWriteItems": 1}
    assert calls() == {"dynamodb:Query": 2, **written}
    # Two more for the token: under its key and under the key of earlier releases.
    stack.put(name, "with a token", token=name)
    assert calls() == {"dynamodb:Query": 4, **written}
    stack.put(name, "with a token", token=name)
    assert calls()["dynamodb:Query"] == 4
    stack.put(name, "exactly this", version=1000)
    assert calls() == {"dynamodb:Query": 2, **written}
    # The rows to move and the chain head; for restore also the highest version.
    for verb, reads in (("delete", 2), ("restore", 3)):
        stack.done(verb, name=name)
        assert calls() == {"dynamodb:Query": reads, "dynamodb:TransactWriteItems": 1}
    stack.done("list", list="history", name=name)
    assert calls() == {"dynamodb:Query": 1}
    stack.invoke("list", {"name": name})
    assert calls() == {"dynamodb:Query": 1}
    # A missing version is queried twice, because an old client may have written it unpadded.
    assert stack.invoke("get", {"name": name, "version": 999}).code == "NotFound"
    assert calls() == {"dynamodb:Query": 2}


def test_the_names_index_is_read_without_the_values(
    stack: Stack, faults: Faults, name: str
) -> None:
    for number in range(12):
        stack.put(f"{name}/{number}", "x" * 300_000)
    faults.calls()
    found = [
        row["version"] for row in stack.pages("list", "versions", patient=True, name=f"{name}/0")
    ]
    assert found == [1]
    faults.calls()
    # The index contains no values, so 3.6 MB of values under one name take one page.
    for _ in range(12):
        stack.put(f"{name}/deep", "x" * 300_000)
    faults.calls()
    found = [
        row["version"] for row in stack.pages("list", "versions", patient=True, name=f"{name}/deep")
    ]
    assert found == list(range(12, 0, -1))
    assert faults.calls()["dynamodb:Query"] == 1
