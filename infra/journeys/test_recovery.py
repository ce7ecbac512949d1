"""delete and restore move versions between the table of secrets and the ledger without loss."""

import time
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from conftest import CommandLine, Stack
from recovery import deleted_numbers, numbers


def test_a_deleted_secret_is_gone_and_is_restored_unchanged(stack: Stack, name: str) -> None:
    for number in range(1, 4):
        stack.put(name, f"value {number}", comment=f"comment {number}", context={"a": "b"})
    before = stack.versions_of(name)
    response = stack.done("delete", name=name)
    until = datetime.fromisoformat(response["recoverable_until"])
    days = (until - datetime.now(UTC)) / timedelta(days=1)
    assert (response["name"], response["versions"]) == (name, [1, 2, 3])
    assert 29.9 < days <= 30
    assert stack.versions_of(name) == []
    for _, got in stack.both("get", {"name": name, "context": {"a": "b"}}):
        assert got.code == "NotFound"
    assert stack.invoke("list", {"name": name}).code == "NotFound"
    for entry in stack.entries_of(name, "deleted#"):
        assert abs(int(entry["ttl"]) - until.timestamp()) < 60
    restored = stack.done("restore", name=name)
    assert restored == {"name": name, "versions": [1, 2, 3]}
    assert stack.versions_of(name) == before
    assert stack.entries_of(name, "deleted#") == []
    for number in range(1, 4):
        got = stack.get(name, version=number, context={"a": "b"})
        assert got["secret"] == f"value {number}"


def test_delete_and_restore_work_by_http_and_by_direct_invoke(stack: Stack, name: str) -> None:
    stack.put(name, "s")
    for send in (stack.invoke, stack.by_http):
        response = send("delete", {"name": name, "version": 1, "recovery_window_in_days": 7})
        assert (response.code, response.body["versions"]) == ("OK", [1])
        assert stack.versions_of(name) == []
        response = send("restore", {"name": name, "version": 1})
        assert (response.code, response.body["versions"]) == ("OK", [1])
        assert stack.get(name)["secret"] == "s"
    response = stack.by_http("delete", {"name": name, "force": True})
    assert response.body == {"name": name, "versions": [1]}


def test_a_single_version_can_be_deleted_and_restored(stack: Stack, name: str) -> None:
    for number in range(1, 4):
        stack.put(name, f"value {number}")
    assert stack.done("delete", name=name, version=2)["versions"] == [2]
    assert numbers(stack.versions_of(name)) == [1, 3]
    assert stack.get(name, stage="AWSPREVIOUS")["version"] == 1
    # After a delete of the highest version, the one below is current. The number is not reused.
    assert stack.done("delete", name=name, version="3")["versions"] == [3]
    assert stack.get(name)["secret"] == "value 1"
    assert stack.put(name, "value 4")["version"] == 4
    assert stack.done("restore", name=name, version=3)["versions"] == [3]
    assert stack.done("restore", name=name)["versions"] == [2]
    assert numbers(stack.versions_of(name)) == [1, 2, 3, 4]
    assert [stack.get(name, version=n)["secret"][-1] for n in (1, 2, 3, 4)] == list("1234")


def test_a_repeated_delete_or_restore_changes_nothing(stack: Stack, name: str) -> None:
    stack.put(name, "s")
    first = stack.done("delete", name=name, recovery_window_in_days=7)
    again = stack.done("delete", name=name)
    assert (again["versions"], again["recoverable_until"]) == ([], first["recoverable_until"])
    stack.done("restore", name=name)
    for _, response in stack.both("restore", {"name": name}):
        assert response.code == "NotFound"
    assert stack.get(name)["secret"] == "s"


def test_deleting_or_restoring_a_missing_secret_is_not_found(stack: Stack, name: str) -> None:
    stack.put(f"{name}/other", "s")
    for request in (
        {"name": name},
        {"name": name, "force": True},
        {"name": name, "version": 1},
        {"name": f"{name}/other", "version": 2},
    ):
        for _, response in stack.both("delete", request):
            assert response.code == "NotFound"
    for _, response in stack.both("restore", {"name": name}):
        assert response.code == "NotFound"
    assert stack.entries_of(name) == []


@pytest.mark.parametrize(
    "fields",
    [
        {"recovery_window_in_days": 6},
        {"recovery_window_in_days": 31},
        {"recovery_window_in_days": 2**63},
        {"recovery_window_in_days": "long"},
        {"recovery_window_in_days": 7, "force": True},
        {"force": "perhaps"},
        {"version": ["1"]},
        {"versions": [1]},
    ],
    ids=str,
)
def test_an_invalid_request_deletes_nothing(
    stack: Stack, name: str, fields: dict[str, Any]
) -> None:
    stack.put(name, "s")
    response = stack.invoke("delete", {"name": name, **fields})
    assert response.code == "Invalid" and "`" in response.message
    assert numbers(stack.versions_of(name)) == [1]
    assert stack.entries_of(name, "deleted#") == []


def test_a_forced_delete_also_removes_versions_awaiting_recovery(stack: Stack, name: str) -> None:
    for number in range(3):
        stack.put(name, f"value {number}")
    stack.done("delete", name=name, version=1)
    assert stack.done("delete", name=name, force=True) == {"name": name, "versions": [1, 2, 3]}
    assert stack.versions_of(name) == []
    assert stack.entries_of(name, "deleted#") == []
    assert stack.invoke("restore", {"name": name}).code == "NotFound"
    assert all(event["force"] for event in stack.history(name)[:2])
    # A forced delete after a soft delete.
    stack.put(name, "again")
    stack.done("delete", name=name)
    assert stack.done("delete", name=name, force=True)["versions"] == [4]
    assert stack.entries_of(name, "deleted#") == []
    assert stack.verify(name) == {}


def test_restore_does_not_overwrite_a_secret_that_was_put_again(stack: Stack, name: str) -> None:
    stack.put(name, "old")
    stack.done("delete", name=name)
    # Numbers are not reused, so both versions can exist.
    assert stack.put(name, "new")["version"] == 2
    for _, response in stack.both("restore", {"name": name}):
        assert response.code == "Exists"
        assert "`version`" in response.message and "elete" in response.message
    assert stack.get(name)["secret"] == "new"
    assert deleted_numbers(stack, name) == [1]
    # The first solution: restore by version.
    assert stack.done("restore", name=name, version=1)["versions"] == [1]
    assert stack.get(name)["secret"] == "new"
    assert stack.get(name, version=1)["secret"] == "old"
    # The second solution: delete the new versions first.
    stack.done("delete", name=name)
    stack.put(name, "newest")
    assert stack.invoke("restore", {"name": name}).code == "Exists"
    stack.done("delete", name=name)
    assert stack.done("restore", name=name)["versions"] == [1, 2, 3]
    assert stack.verify(name) == {}


def test_restore_does_not_overwrite_a_version_that_an_old_client_put_again(
    stack: Stack, credstash: CommandLine, name: str
) -> None:
    stack.put(name, "old")
    stack.done("delete", name=name)
    assert credstash("put", name, "theirs")[0] == 0
    assert stack.invoke("restore", {"name": name}).code == "Exists"
    assert stack.invoke("restore", {"name": name, "version": 1}).code == "Exists"
    assert stack.get(name)["secret"] == "theirs"
    # Two rows of one version: neither is lost. The last one deleted is restored, even if the
    # recovery window of the other one is longer.
    old = int(stack.entries_of(name, "deleted#")[0]["deleted_at"])
    while time.time() < old + 2:
        time.sleep(0.1)
    stack.done("delete", name=name, recovery_window_in_days=7)
    assert deleted_numbers(stack, name) == [1, 1]
    assert stack.done("restore", name=name)["versions"] == [1]
    assert stack.get(name)["secret"] == "theirs"
    assert deleted_numbers(stack, name) == [1]
    response = stack.invoke("restore", {"name": name})
    assert response.code == "Exists" and "`deleted_before`" in response.message
    # `deleted_before` restores the other one.
    stack.done("delete", name=name)
    before = datetime.fromtimestamp(old, UTC).isoformat()
    assert stack.done("restore", name=name, deleted_before=before)["versions"] == [1]
    assert stack.get(name)["secret"] == "old"
    assert stack.verify(name) == {}


def test_one_taken_version_number_does_not_block_the_rest_of_a_restore(
    stack: Stack, credstash: CommandLine, name: str
) -> None:
    for number in range(1, 121):
        stack.put(name, f"value {number}")
    stack.done("delete", name=name, version=60)
    assert credstash("put", name, "theirs", "-v", "60")[0] == 0
    stack.done("delete", name=name)
    assert deleted_numbers(stack, name).count(60) == 2
    # Simulates a restore that is interrupted after its first transaction and sent again twice.
    stack.done("restore", name=name, version=120)
    assert stack.done("restore", name=name)["versions"] == list(range(1, 120))
    assert stack.get(name, version=60)["secret"] == "theirs"
    assert stack.invoke("restore", {"name": name}).code == "Exists"
    assert deleted_numbers(stack, name) == [60]
    assert stack.done("delete", name=name, version=60, force=True)["versions"] == [60]
    assert deleted_numbers(stack, name) == []
    assert numbers(stack.versions_of(name)) == [n for n in range(1, 121) if n != 60]


def test_similar_versions_are_distinguished(stack: Stack, name: str) -> None:
    """Covers padded and unpadded numbers, and text with the separator of the ledger's sort keys."""
    stack.put(name, "s")
    row = stack.row(name)
    for version in ("1", "1#x", f"{1:019}#0"):
        stack.rows.put_item(Item={**row, "version": version})
    stack.done("delete", name=name)
    # A number is deleted in both its forms.
    assert stack.done("delete", name=name, version=1, force=True)["versions"] == [1]
    left = sorted(entry["row"]["version"] for entry in stack.entries_of(name, "deleted#"))
    assert left == [f"{1:019}#0", "1#x"]
    response = stack.invoke("delete", {"name": name, "version": 1, "force": True})
    assert response.code == "NotFound"
    stack.done("restore", name=name, version="1#x")
    assert [row["version"] for row in stack.versions_of(name)] == ["1#x"]


def test_rows_of_one_number_are_restored_under_a_padded_version(
    stack: Stack, credstash: CommandLine, name: str
) -> None:
    """Both forms of a number cannot be restored at once, and the order is that of the numbers."""
    assert credstash("put", name, "theirs", "-v", "1")[0] == 0
    (row,) = stack.versions_of(name)
    for version in ("1", "2", "10"):
        stack.rows.put_item(Item={**row, "version": version})
    stack.done("delete", name=name)
    stack.rows.put_item(Item={**row, "version": f"{20:019}"})
    assert stack.invoke("restore", {"name": name}).code == "Exists"
    for number in (1, 2, 10):
        assert stack.done("restore", name=name, version=number)["versions"] == [number]
    padded = [f"{number:019}" for number in (1, 2, 10, 20)]
    assert [row["version"] for row in stack.versions_of(name)] == padded
    response = stack.invoke("restore", {"name": name, "version": "1"})
    assert response.code == "Exists" and "elete" in response.message


def test_a_version_past_its_recovery_window_is_not_restored_even_if_dynamodb_still_has_it(
    stack: Stack, name: str
) -> None:
    stack.put(name, "s")
    stack.done("delete", name=name)
    (entry,) = stack.entries_of(name, "deleted#")
    stack.entries.put_item(Item={**entry, "ttl": 1})
    assert stack.invoke("restore", {"name": name}).code == "NotFound"
    assert stack.versions_of(name) == []


def test_rows_of_other_clients_are_restored_unchanged(
    stack: Stack, credstash: CommandLine, name: str
) -> None:
    """Covers unknown attributes, types that Coffer never writes, and unusual versions."""
    assert credstash("put", name, "theirs", "-v", "7", "-c", "why")[0] == 0
    (row,) = stack.versions_of(name)
    unusual = {**row, "ttl": 5, "tags": {"x", "y"}, "list": [1, None, {"a": b"b"}], "flag": False}
    stack.rows.put_item(Item=unusual)
    stack.rows.put_item(Item={**row, "version": "release-2", "entry": "theirs"})
    stack.rows.put_item(Item={**row, "version": "12"})
    before = stack.versions_of(name)
    assert stack.done("delete", name=name)["versions"] == [7, 12, "release-2"]
    assert stack.versions_of(name) == []
    stack.done("restore", name=name)
    assert stack.versions_of(name) == before
    for version in ("12", "release-2"):
        assert stack.done("delete", name=name, version=version)["versions"] != []
    assert stack.done("restore", name=name, version="12")["versions"] == [12]
    assert stack.done("restore", name=name, version="release-2")["versions"] == ["release-2"]
    # Below a padded version, an unpadded number is restored with its zeros.
    seven, twelve, release = before
    assert stack.versions_of(name) == [seven, {**twelve, "version": f"{12:019}"}, release]
    assert credstash("get", name, "-v", f"{7:019}")[1].strip() == "theirs"


def test_the_largest_version_can_be_deleted_and_restored(stack: Stack, name: str) -> None:
    short = name.replace("/", "")[-6:]
    response = stack.invoke("put", {"name": short, "secret": "x" * 307_200})
    most = next(int(word) for word in response.message.split() if word.isdigit())
    for _ in range(12):
        stack.put(short, "x" * most)
    before = stack.versions_of(short)
    assert stack.done("delete", name=short)["versions"] == list(range(1, 13))
    assert stack.done("restore", name=short)["versions"] == list(range(1, 13))
    assert stack.versions_of(short) == before
    assert stack.done("delete", name=short, force=True)["versions"] == list(range(1, 13))
