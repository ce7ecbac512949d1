"""A reseal pads unpadded version numbers where that keeps the current version."""

import base64
from typing import Any

from boto3.dynamodb.types import Binary

from conftest import Stack
from legacy import Writer
from seal import seal_of


def put_unpadded(stack: Stack, writer: Writer, name: str, *numbers: int, **options: Any) -> None:
    """Puts rows with unpadded version numbers, as clients wrote them before 2016."""
    for number in numbers:
        row = writer.row(name, f"value {number}", **options)
        stack.rows.put_item(Item={**row, "version": str(number)})


def versions(rows: list[Any]) -> list[str]:
    """Returns the versions of rows as they are stored."""
    return [row["version"] for row in rows]


def test_a_reseal_pads_version_numbers_and_keeps_the_current_version(
    stack: Stack, kms: Any, name: str
) -> None:
    writer = Writer(kms, stack.key_arn)
    put_unpadded(stack, writer, name, *range(2, 10))
    # This one gets another data key, and the ledger keeps the row from before the reseal.
    put_unpadded(stack, writer, name, 1, digest="SHA")
    assert stack.get(name)["secret"] == "value 9"
    # A new padded version could not become current.
    assert stack.invoke("put", {"name": name, "secret": "ten"}).code == "Exists"
    rows = stack.versions_of(name)
    dry = stack.done("reseal", action="reseal", name=name, dry_run=True)
    assert (dry["changed"], dry["failed"]) == (9, 0), dry
    assert stack.versions_of(name) == rows
    report = stack.done("reseal", action="reseal", name=name)
    assert (report["changed"], report["failed"]) == (9, 0), report
    assert versions(stack.versions_of(name)) == [f"{version:019}" for version in range(1, 10)]
    for version in range(1, 10):
        got = stack.get(name, version=version)
        assert (got["secret"], "dialect" in got) == (f"value {version}", False)
    assert stack.get(name)["version"] == 9
    recorded = [event["version"] for event in stack.history(name)]
    assert sorted(recorded) == list(range(1, 10))
    assert stack.put(name, "ten")["version"] == 10
    (entry,) = stack.entries_of(name, "deleted#")
    assert entry["before_reseal"] is True and entry["row"]["version"] == "1"
    # It is restored under its padded number, after the sealed version is deleted.
    request = {"name": name, "version": 1, "before_reseal": True}
    response = stack.invoke("restore", request)
    assert response.code == "Exists" and "elete it first" in response.message
    stack.done("delete", name=name, version=1)
    assert stack.done("restore", **request)["versions"] == [1]
    assert versions(stack.versions_of(name)) == [f"{version:019}" for version in range(1, 11)]
    assert stack.get(name)["version"] == 10
    got = stack.get(name, version=1)
    assert (got["secret"], got["dialect"]) == ("value 1", "credstash")
    assert stack.done("reseal", action="reseal", name=name)["changed"] == 1
    assert stack.verify(name) == {}


def test_a_restored_version_never_hides_the_current_one(stack: Stack, kms: Any, name: str) -> None:
    writer = Writer(kms, stack.key_arn)
    for each in ("legacy", "sealed"):
        put_unpadded(stack, writer, f"{name}/{each}", 7)
        stack.done("delete", name=f"{name}/{each}")
    assert stack.done("reseal", action="reseal", name=f"{name}/sealed")["changed"] == 1
    for each in ("legacy", "sealed"):
        assert stack.put(f"{name}/{each}", "eighth")["version"] == 8
    # A row without a seal is restored with a padded number.
    assert stack.done("restore", name=f"{name}/legacy", version=7)["versions"] == [7]
    assert versions(stack.versions_of(f"{name}/legacy")) == [f"{7:019}", f"{8:019}"]
    response = stack.invoke("restore", {"name": f"{name}/sealed", "version": 7})
    assert response.code == "Exists" and "without leading zeros" in response.message
    for each in ("legacy", "sealed"):
        assert stack.get(f"{name}/{each}")["secret"] == "eighth"
        assert stack.put(f"{name}/{each}", "ninth")["version"] == 9
        assert stack.verify(f"{name}/{each}") == {}
    # A forced delete removes the padded and the unpadded form of a number.
    put_unpadded(stack, writer, f"{name}/sealed", 7)
    stack.done("delete", name=f"{name}/sealed", version=7, force=True)
    assert stack.invoke("restore", {"name": f"{name}/sealed", "version": 7}).code == "NotFound"


def test_a_sealed_unpadded_version_is_sealed_again_under_its_padded_number(
    stack: Stack, kms: Any, name: str
) -> None:
    row = Writer(kms, stack.key_arn).row(name, "sealed", "nodecredstash")
    row |= {"version": "7", "context": {}, "revision": Binary(b"0123456789abcdef")}
    key = kms.decrypt(CiphertextBlob=base64.b64decode(row["key"]))["Plaintext"]
    row["seal"] = seal_of(key, row)
    stack.rows.put_item(Item=row)
    assert stack.get(name)["secret"] == "sealed"
    assert stack.done("reseal", action="reseal", name=name)["changed"] == 1
    (after,) = stack.versions_of(name)
    assert after["version"] == f"{7:019}" and after["seal"] == seal_of(key, after)
    # The ciphertext and the data key are unchanged.
    for field in ("key", "contents", "hmac", "context", "revision"):
        assert after[field] == row[field]
    got = stack.get(name)
    assert (got["secret"], got["version"]) == ("sealed", 7)
    assert stack.entries_of(name, "deleted#") == []
    assert stack.put(name, "next")["version"] == 8
    # A version with an invalid seal is not sealed again.
    damaged = {**row, "version": "9", "seal": row["seal"][::-1]}
    stack.rows.put_item(Item=damaged)
    report = stack.done("reseal", action="reseal", name=name)
    assert (report["changed"], report["reasons"]) == (0, {"integrity": 1})
    assert stack.versions_of(name)[-1] == damaged


def test_a_version_that_cannot_be_padded_is_sealed_without_padding(
    stack: Stack, kms: Any, name: str
) -> None:
    writer = Writer(kms, stack.key_arn)
    # As text, "2" is above "10". If both were padded, the current version would change.
    put_unpadded(stack, writer, f"{name}/order", 2, 10)
    # Another version has the padded number.
    put_unpadded(stack, writer, f"{name}/exists", 7)
    stack.rows.put_item(Item=writer.row(f"{name}/exists", "padded", version=7))
    for reason in ("order", "exists"):
        request = {"action": "reseal", "name": f"{name}/{reason}"}
        for dry_run in (True, False):
            report = stack.done("reseal", **request, dry_run=dry_run)
            assert (report["changed"], report["failed"]) == (2, 0), report
        assert all("seal" in row for row in stack.versions_of(f"{name}/{reason}"))
        # The reason is reported when nothing else is left to do.
        report = stack.done("reseal", **request)
        assert (report["changed"], report["reasons"]) == (0, {reason: 1})
        response = stack.invoke("put", {"name": f"{name}/{reason}", "secret": "s"})
        assert response.code == "Exists" and f"`{reason}`" in response.message
    assert versions(stack.versions_of(f"{name}/order")) == [f"{10:019}", "2"]
    assert stack.get(f"{name}/order")["secret"] == "value 2"
    assert versions(stack.versions_of(f"{name}/exists")) == [f"{7:019}", "7"]
    # A deleted version keeps its number when it is sealed and restored.
    put_unpadded(stack, writer, f"{name}/deleted", 3)
    stack.done("delete", name=f"{name}/deleted")
    assert stack.done("reseal", action="reseal", name=f"{name}/deleted")["changed"] == 1
    (entry,) = stack.entries_of(f"{name}/deleted", "deleted#")
    assert entry["row"]["version"] == "3" and "seal" in entry["row"]
    stack.done("restore", name=f"{name}/deleted")
    assert stack.get(f"{name}/deleted")["secret"] == "value 3"
