"""Reseal: legacy rows of every dialect, live and deleted, get a seal.

Damaged and ambiguous rows stay byte for byte. Afterwards, everything opens on a stack that refuses
legacy rows.
"""

import base64
import time
from typing import Any

import credstash
import pytest
from boto3.dynamodb.types import Binary

import rotation
from conftest import REGION, Faults, NodeClient, Show
from legacy import Writer
from policies import operations
from reseal_rows import HINTS, VERSIONS, Rows, scan_by_key
from seal import seal_of


def plaintext_of(response: dict[str, Any]) -> bytes:
    if "secret" in response:
        return response["secret"].encode()
    return base64.b64decode(response["secret_base64"])


@pytest.fixture(scope="module")
def rows(kms: Any) -> Rows:
    return Rows(kms)


def test_a_dry_run_reports_and_changes_nothing(rows: Rows, faults: Faults) -> None:
    faults.calls()
    report = rotation.run(rows.stack, "reseal", dry_run=True, **HINTS)
    assert report["dry_run"] and report["seen"] == rows.count
    assert report["changed"] == len(rows.sound) + VERSIONS
    assert report["failed"] == len(rows.refused) and report["skipped"] == 1
    assert scan_by_key(rows.stack.rows) == rows.rows
    kept = {key: item for key, item in scan_by_key(rows.stack.entries).items() if "row" in item}
    assert kept == {key: item for key, item in rows.entries.items() if "row" in item}
    assert "kms:GenerateDataKey" not in faults.calls()
    failures = rotation.failures(rows.stack, "reseal")
    assert {name: reason for (name, _), reason in failures.items()} == rows.refused


def test_every_dialect_is_sealed_and_all_other_rows_stay_byte_for_byte(
    rows: Rows, kms: Any, show: Show
) -> None:
    stack = rows.stack
    report = rotation.run(stack, "reseal", **HINTS)
    show(f"{report['changed']} resealed, refused: {report['reasons']}")
    assert report["changed"] == len(rows.sound) + VERSIONS and report["failed"] == len(rows.refused)
    failures = rotation.failures(stack, "reseal")
    assert {name: reason for (name, _), reason in failures.items()} == rows.refused
    after = scan_by_key(stack.rows)
    assert set(after) == set(rows.rows)
    for key, row in rows.rows.items():
        if key[0] in rows.refused or key[0] == "sealed":
            assert after[key] == row
            continue
        resealed = after[key]
        # Computes the seal without Coffer's code.
        data_key = kms.decrypt(
            CiphertextBlob=base64.b64decode(resealed["key"]), EncryptionContext=resealed["context"]
        )["Plaintext"]
        assert resealed["seal"] == seal_of(data_key, resealed)
        assert isinstance(resealed["hmac"], str) and resealed["hmac"] == resealed["hmac"].lower()
        assert resealed["digest"] in ("SHA224", "SHA256", "SHA384", "SHA512")
        for field in ("name", "version", "comment"):
            assert resealed.get(field) == row.get(field)
        if isinstance(row["contents"], Binary):
            assert resealed["revision"] == row["revision"]
    for name, (plaintext, context) in rows.sound.items():
        if name in rows.deleted:
            continue
        got = stack.get(name, context=context)
        assert plaintext_of(got) == plaintext and "dialect" not in got
        # A resealed row requires its encryption context.
        if context:
            assert stack.invoke("get", {"name": name}).code == "Forbidden"


def test_old_clients_can_read_resealed_rows(rows: Rows, nodecredstash_as_root: NodeClient) -> None:
    for name, (plaintext, context) in rows.sound.items():
        if name in rows.deleted:
            continue
        try:
            text = plaintext.decode()
        except UnicodeDecodeError:
            continue
        read = {"table": rows.stack.table, "context": context, "region": REGION}
        assert credstash.getSecret(name, **read) == text
        request = {"tableName": rows.stack.table, "name": name, "context": context}
        assert nodecredstash_as_root("getSecret", **request) == {"ok": text}


def test_a_reseal_is_recorded_in_the_history(rows: Rows) -> None:
    stack = rows.stack
    events = [event for event in stack.history("deep") if event["operation"] == "reseal"]
    versions = [
        version for event in events for version in event.get("versions") or [event["version"]]
    ]
    assert sorted(versions) == list(range(1, VERSIONS + 1))
    assert all(event["who"].startswith("arn:aws:states:") for event in events)
    assert stack.verify("deep") == {}
    for name in rows.deleted:
        assert operations(stack, name) == ["reseal", "delete"]
        assert stack.verify(name) == {}


def test_a_second_reseal_changes_nothing_and_makes_no_kms_calls_for_sealed_rows(
    rows: Rows, faults: Faults
) -> None:
    before = scan_by_key(rows.stack.rows)
    faults.calls()
    report = rotation.run(rows.stack, "reseal", **HINTS)
    assert report["changed"] == 0 and report["failed"] == len(rows.refused)
    assert faults.calls()["kms:Decrypt"] <= 2 * len(rows.refused)
    assert scan_by_key(rows.stack.rows) == before


def test_a_secret_with_hundreds_of_possible_contexts_is_processed_in_several_requests(
    rows: Rows, kms: Any
) -> None:
    """Each context takes one KMS call, at most 400 a second: too many for one request."""
    writer, versions = Writer(kms, rows.key), range(1, 33)
    for version in versions:
        row = writer.row("guessed", "s", version=version, context={"not": "known"})
        rows.stack.rows.put_item(Item=row)
    contexts = [{"name": "guessed", "context": {"app": f"{n}"}} for n in range(300)]
    request = {"name": "guessed", "action": "reseal", "dry_run": True, "contexts": contexts}
    failures: list[tuple[int, str]] = []
    following: dict[str, Any] = {}
    while True:
        page = rows.stack.patiently("rotate", **request, **following)
        failures += [(each["version"], each["reason"]) for each in page.get("failures", [])]
        if "next" not in page:
            break
        following = {"next": page["next"]}
    assert failures == [(version, "context") for version in versions] and following
    for version in versions:
        rows.stack.rows.delete_item(Key={"name": "guessed", "version": f"{version:019}"})


def test_everything_then_opens_on_a_stack_that_refuses_legacy_rows(rows: Rows) -> None:
    stack = rows.stack = rows.rotating.deploy(rows.key, LegacyItems="refuse")
    for name in rows.deleted:
        stack.done("restore", name=name)
    for name, (plaintext, context) in rows.sound.items():
        assert plaintext_of(stack.get(name, context=context)) == plaintext
    for version in (1, VERSIONS):
        assert stack.get("deep", version=version)["secret"] == f"value {version}"
    for name, reason in rows.refused.items():
        response = stack.invoke("get", {"name": name})
        assert response.code == ("Malformed" if reason == "malformed" else "Integrity"), name
    # Nor does such a stack seal a legacy row, whatever a hint says.
    hint = {"dialects": [{"name": "bad/ambiguous 0", "dialect": "credstash"}]}
    assert rotation.run(stack, "reseal", **HINTS, **hint)["changed"] == 0
    assert rotation.failures(stack, "reseal")["bad/ambiguous 0", 1] == "unsealed"
    rows.stack = rows.rotating.deploy(rows.key)


def test_hints_resolve_ambiguous_rows_but_never_damaged_ones(rows: Rows) -> None:
    """A request for one name accepts contexts; only a run accepts dialects.

    No hint makes Coffer seal a damaged row.
    """
    stack = rows.stack
    dialect = {"dialects": [{"name": "bad/ambiguous 0", "dialect": "credstash"}]}
    request = {"action": "reseal", "name": "bad/ambiguous 0", **dialect}
    for _, response in stack.both("rotate", request):
        assert response.code == "Invalid" and "state machine" in response.message
    assert rotation.run(stack, "reseal", dry_run=True, **HINTS, **dialect)["changed"] == 1
    assert stack.get("bad/ambiguous 0")["dialect"] == "credstash"
    for changed in (1, 0):
        assert rotation.run(stack, "reseal", **HINTS, **dialect)["changed"] == changed
    sealed = stack.get("bad/ambiguous 0")
    assert sealed["secret"] == "seventeen letters" and "dialect" not in sealed
    reasons = ("integrity", "malformed", "stripped")
    damaged = [name for name, reason in rows.refused.items() if reason in reasons]
    everything = [{"name": name, "dialect": "rucredstash-le32"} for name in damaged]
    rotation.run(stack, "reseal", **HINTS, dialects=everything)
    failures = {name: reason for (name, _), reason in rotation.failures(stack, "reseal").items()}
    for name in damaged:
        assert failures[name] == rows.refused[name]
        version = next(key[1] for key in rows.rows if key[0] == name)
        assert scan_by_key(stack.rows)[name, version] == rows.rows[name, version]
    hint = {"contexts": [{"name": "bad/context", "context": {"not": "known"}}]}
    request = {"action": "reseal", "name": "bad/context", **hint}
    for number, (_, response) in enumerate(stack.both("rotate", request)):
        assert (response.body["changed"], response.body["skipped"]) == ((1, 0), (0, 1))[number]
    assert stack.get("bad/context", context={"not": "known"})["secret"] == "s"


def test_a_dialect_that_contradicts_the_row_changes_nothing(rows: Rows, kms: Any) -> None:
    stack, writer = rows.stack, Writer(kms, rows.key)
    text = "so long that its other reading is not text by chance"
    claims = {"claimed/credstash": "rucredstash-le32", "claimed/rucredstash": "credstash"}
    for name in claims:
        stack.rows.put_item(Item=writer.row(name, text, name.removeprefix("claimed/")))
    before = {name: stack.versions_of(name) for name in claims}
    dialects = [{"name": name, "dialect": dialect} for name, dialect in claims.items()]
    rotation.run(stack, "reseal", dialects=dialects)
    failures = {name: reason for (name, _), reason in rotation.failures(stack, "reseal").items()}
    assert [failures[name] for name in claims] == ["dialect", "dialect"]
    assert {name: stack.versions_of(name) for name in claims} == before
    rotation.run(stack, "reseal")
    for name in claims:
        assert stack.get(name)["secret"] == text


def test_a_reseal_with_a_wrong_dialect_can_be_undone(rows: Rows) -> None:
    """The ledger keeps the row from before the reseal for the recovery window."""
    stack, name = rows.stack, "bad/ambiguous 1"
    before = rows.rows[name, f"{1:019}"]

    def hint(dialect: str) -> dict[str, Any]:
        return {"dialects": [{"name": name, "dialect": dialect}]}

    assert rotation.run(stack, "reseal", **HINTS, **hint("rucredstash-le32"))["changed"] == 1
    assert stack.get(name)["secret"] != "seventeen letters"
    (entry,) = stack.entries_of(name, "deleted#")
    assert entry["before_reseal"] is True
    assert {"name": name, **entry["row"]} == before
    assert int(entry["ttl"]) == pytest.approx(time.time() + 30 * 24 * 3600, abs=600)
    # That row is not a deleted version, and a run does not reseal it.
    assert stack.invoke("restore", {"name": name}).code == "NotFound"
    assert stack.invoke("restore", {"name": name, "version": 1}).code == "NotFound"
    assert rotation.run(stack, "reseal", **HINTS)["changed"] == 0
    assert stack.entries_of(name, "deleted#") == [entry]
    request = {"name": name, "version": 1, "before_reseal": True}
    for _, response in stack.both("restore", {"name": name, "before_reseal": True}):
        assert response.code == "Invalid" and "`version`" in response.message
    for _, response in stack.both("restore", request):
        assert response.code == "Exists" and "elete it first" in response.message
    stack.done("delete", name=name, version=1)
    assert stack.done("restore", **request)["versions"] == [1]
    assert stack.versions_of(name) == [before]
    assert stack.invoke("restore", request).code == "NotFound"
    assert rotation.run(stack, "reseal", **HINTS, **hint("credstash"))["changed"] == 1
    assert stack.get(name)["secret"] == "seventeen letters"
    assert stack.verify(name) == {}
    # A forced delete removes all of it.
    assert stack.done("delete", name=name, force=True)["versions"] == [1]
    assert stack.entries_of(name, "deleted#") == stack.versions_of(name) == []


def test_a_reseal_of_a_rucredstash_row_with_a_wrong_dialect_can_be_undone(
    rows: Rows, kms: Any
) -> None:
    stack, writer = rows.stack, Writer(kms, rows.key)
    text = "wrongly hinted at"
    while True:
        row = writer.row("hinted/rucredstash", text, "rucredstash")
        stack.rows.put_item(Item=row)
        rotation.run(stack, "reseal", dry_run=True)
        if rotation.failures(stack, "reseal").get(("hinted/rucredstash", 1)) == "ambiguous":
            break
    hint = {"dialects": [{"name": "hinted/rucredstash", "dialect": "credstash"}]}
    assert rotation.run(stack, "reseal", **hint)["changed"] >= 1
    assert stack.get("hinted/rucredstash").get("secret") != text
    stack.done("delete", name="hinted/rucredstash", version=1)
    request = {"name": "hinted/rucredstash", "version": 1, "before_reseal": True}
    assert stack.done("restore", **request)["versions"] == [1]
    assert stack.versions_of("hinted/rucredstash") == [row]
    hint = {"dialects": [{"name": "hinted/rucredstash", "dialect": "rucredstash-le32"}]}
    rotation.run(stack, "reseal", **hint)
    assert stack.get("hinted/rucredstash")["secret"] == text
    stack.done("delete", name="hinted/rucredstash", force=True)
