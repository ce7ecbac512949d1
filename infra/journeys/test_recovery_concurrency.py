"""delete and restore of large secrets, and concurrently with reads, puts and a reseal."""

import os
import time
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any

import pytest

from conftest import CommandLine, Faults, NodeClient, Response, Stack, client
from legacy import Writer
from recovery import deleted_numbers, numbers

NAMES = 50
VERSIONS = 250
RECOVERY = f"recovery/{os.getpid()}"


def test_reads_during_a_delete_or_restore_return_only_the_newest_version(
    stack: Stack, name: str
) -> None:
    """A delete removes the newest version last. A restore writes it first."""
    for number in range(120):
        stack.put(name, f"value {number + 1}")
    seen: list[int | None] = []

    def read_until_done(change: Future[Any]) -> None:
        while not change.done():
            response = stack.invoke("get", {"name": name})
            assert response.code in ("OK", "NotFound"), response
            seen.append(response.body["version"] if response.code == "OK" else None)

    with ThreadPoolExecutor(4) as pool:
        for verb, order in (("delete", [120, None]), ("restore", [None, 120])):
            seen.clear()
            change = pool.submit(stack.done, verb, name=name)
            list(pool.map(read_until_done, [change] * 3))
            assert len(change.result()["versions"]) == 120
            assert seen and set(seen) <= set(order)
    assert len(stack.versions_of(name)) == 120


def test_concurrent_puts_and_deletes_lose_nothing(stack: Stack, name: str) -> None:
    """Every version is either live or deleted, never both, and all of them can be restored."""

    def put(number: int) -> Response:
        return stack.invoke("put", {"name": name, "secret": f"value {number}"})

    def delete(_: int) -> Response:
        return stack.invoke("delete", {"name": name})

    with ThreadPoolExecutor(12) as pool:
        puts, deletes = pool.map(put, range(60)), pool.map(delete, range(6))
        writers = {response.body["version"]: number for number, response in enumerate(puts)}
        assert {response.code for response in deletes} <= {"OK", "NotFound"}
    assert sorted(writers) == list(range(1, 61))
    assert sorted(numbers(stack.versions_of(name)) + deleted_numbers(stack, name)) == sorted(
        writers
    )
    assert stack.verify(name) == {}
    stack.done("delete", name=name)
    stack.done("restore", name=name)
    assert numbers(stack.versions_of(name)) == list(range(1, 61))
    for version, number in writers.items():
        assert stack.get(name, version=version)["secret"] == f"value {number}"


@pytest.fixture(scope="module")
def large_secrets(stack: Stack) -> list[str]:
    """Creates 50 names with 250 versions each, all of which open, and returns the names.

    Three versions are put. The others are legacy rows with the data key of the second one: without
    a seal, a data key is not bound to a version.
    """

    def create(number: int) -> str:
        name = f"{RECOVERY}/{number:02}"
        sealed = [stack.put(name, f"{name} {version}") for version in (1, 2)]
        assert [stored["version"] for stored in sealed] == [1, 2]
        legacy = {
            field: value
            for field, value in stack.row(name, 2).items()
            if field in ("name", "version", "key", "contents", "hmac", "digest")
        }
        with stack.rows.batch_writer() as batch:
            for version in range(3, VERSIONS):
                batch.put_item(Item={**legacy, "version": f"{version:019}"})
        assert stack.put(name, f"{name} newest")["version"] == VERSIONS
        return name

    with ThreadPoolExecutor(8) as pool:
        return list(pool.map(create, range(NAMES)))


def test_fifty_names_with_250_versions_are_deleted_and_half_of_them_restored(
    stack: Stack, large_secrets: list[str], credstash: CommandLine, nodecredstash: NodeClient
) -> None:
    rows = {name: stack.versions_of(name) for name in large_secrets}
    assert all(len(found) == VERSIONS for found in rows.values())
    with ThreadPoolExecutor(4) as pool:
        for response in pool.map(lambda name: stack.done("delete", name=name), large_secrets):
            assert response["versions"] == list(range(1, VERSIONS + 1))
    assert all(stack.versions_of(name) == [] for name in large_secrets)
    restored, gone = large_secrets[::2], large_secrets[1::2]
    with ThreadPoolExecutor(4) as pool:
        for response in pool.map(lambda name: stack.done("restore", name=name), restored):
            assert response["versions"] == list(range(1, VERSIONS + 1))
    for name in restored:
        assert stack.versions_of(name) == rows[name]
        for version, value in ((None, "newest"), (1, "1"), (2, "2"), (100, "2")):
            request = {} if version is None else {"version": version}
            assert stack.get(name, **request)["secret"] == f"{name} {value}"
    for name in gone:
        assert stack.versions_of(name) == []
        assert deleted_numbers(stack, name) == list(range(1, VERSIONS + 1))
        assert stack.invoke("get", {"name": name}).code == "NotFound"
        assert stack.invoke("get", {"name": name, "version": 100}).code == "NotFound"
    listed = stack.pages("list", "secrets", prefix=RECOVERY, limit=1000)
    assert [entry["name"] for entry in listed] == sorted(restored)
    for name in restored[:3]:
        assert credstash("get", name)[1].strip() == f"{name} newest"
        assert credstash("get", name, "-v", f"{100:019}")[1].strip() == f"{name} 2"
        assert nodecredstash("getSecret", name=name)["ok"] == f"{name} newest"
    for name in gone[:3]:
        assert credstash("get", name)[0] != 0
        assert "ok" not in nodecredstash("getSecret", name=name)
    for name in large_secrets[:4]:
        assert stack.verify(name) == {}
        deletes = [event for event in stack.history(name) if event["operation"] == "delete"]
        recorded = [version for event in deletes for version in event["versions"]]
        assert sorted(recorded) == list(range(1, VERSIONS + 1))


def test_a_reseal_keeps_the_recovery_window_of_a_deleted_version(
    stack: Stack, faults: Faults, name: str
) -> None:
    """The order: delete (7 days), reseal reads, restore, delete (30 days), reseal writes."""
    stack.rows.put_item(Item=Writer(client("kms"), stack.key_arn).row(name, "s", digest="SHA"))
    stack.done("delete", name=name, recovery_window_in_days=7)
    (short,) = stack.entries_of(name, "deleted#")
    faults.calls()
    delay = {"service": "kms", "kind": "delay", "seconds": 2.5, "count": 1}
    faults.set({**delay, "operation": "Decrypt"}, {**delay, "operation": "GenerateDataKey"})
    with ThreadPoolExecutor(1) as pool:
        reseal = pool.submit(stack.invoke, "reseal", {"action": "reseal", "name": name})
        deadline = time.monotonic() + 20
        while "kms:Decrypt" not in faults.rates():
            assert time.monotonic() < deadline
            time.sleep(0.02)
        stack.done("restore", name=name)
        stack.done("delete", name=name)
        assert not reseal.done(), "the reseal ended before the version was deleted again"
        (long,) = stack.entries_of(name, "deleted#")
        response = reseal.result()
    assert (response.code, response.body["changed"]) == ("OK", 1), response
    entries = stack.entries_of(name, "deleted#")
    (entry,) = [entry for entry in entries if not entry.get("before_reseal")]
    assert "seal" in entry["row"] and "seal" not in short["row"]
    for attribute in ("entry", "ttl", "sequence", "deleted_at"):
        assert entry[attribute] == long[attribute]
    assert int(long["ttl"]) - int(short["ttl"]) > 20 * 24 * 3600
    # The row as it was before the reseal expires at the same time.
    (before,) = [entry for entry in entries if entry.get("before_reseal")]
    assert before["ttl"] == long["ttl"] and before["row"] == short["row"]
    assert stack.done("restore", name=name)["versions"] == [1]
    assert stack.get(name)["secret"] == "s"
    assert stack.verify(name) == {}
