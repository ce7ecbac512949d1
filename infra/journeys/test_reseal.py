"""Legacy rows given a seal: every dialect, live and deleted; what is damaged or may be two dialects'
stays as it is, to the byte; then the stack refuses what has no seal, and everything opens."""

import base64
import json
import os
import time

import credstash
import pytest
import rotation
from boto3.dynamodb.types import Binary
from conftest import REGION, ROOT
from legacy import CLIENTS, Writer
from seal import seal_of

VECTORS = json.loads((ROOT / "shared/tests/vectors.json").read_text())["vectors"]
CONTEXT = {"team": "payments"}
HINTS = {"contexts": [{"prefix": "context", "context": CONTEXT}]}
OPENING = [vector for vector in VECTORS if "plaintext" in vector["expect"]]
REFUSED = [vector for vector in VECTORS if "error" in vector["expect"]]
DEEP = 30


def stored(attribute):
    [(kind, value)] = attribute.items()
    return Binary(base64.b64decode(value)) if kind == "B" else value


def of_vector(kms, key, vector, name, context):
    item = {field: stored(value) for field, value in vector["item"].items()}
    wrapped = kms.encrypt(
        KeyId=key, Plaintext=bytes.fromhex(vector["data_key"]), EncryptionContext=context
    )["CiphertextBlob"]
    raw = isinstance(item["key"], Binary)
    item["key"] = Binary(wrapped) if raw else base64.b64encode(wrapped).decode()
    item["name"] = name
    return item


def scan(table):
    items, more = {}, {}
    while True:
        page = table.scan(ConsistentRead=True, **more)
        items |= {(item["name"], item.get("version") or item["entry"]): item for item in page["Items"]}
        if "LastEvaluatedKey" not in page:
            return items
        more = {"ExclusiveStartKey": page["LastEvaluatedKey"]}


def plaintext_of(answer):
    if "secret" in answer:
        return answer["secret"].encode()
    return base64.b64decode(answer["secret_base64"])


class Rows:
    """The rows as they were written, and what each is to become: `good` opens, `bad` stays."""

    def __init__(self, kms):
        self.rotating = rotation.Rotating("reseal")
        self.key = kms.create_key()["KeyMetadata"]["Arn"]
        self.stack = self.rotating.deploy(self.key)
        self.good, self.bad, self.buried = {}, {}, []
        put = lambda item: self.stack.rows.put_item(Item=item)
        writer = Writer(kms, self.key)
        for vector in OPENING:
            plaintext = base64.b64decode(vector["expect"]["plaintext"])
            for prefix, context in (("vector", {}), ("context", CONTEXT), ("buried", {})):
                name = f"{prefix}/{vector['name']}"
                put(of_vector(kms, self.key, vector, name, context))
                self.good[name] = (plaintext, context)
        for vector in REFUSED:
            name = f"bad/{vector['name']}"
            put(of_vector(kms, self.key, vector, name, {}))
            self.bad[name] = vector["expect"]["error"].lower()
        for number in range(3):
            put(writer.ambiguous(f"bad/ambiguous {number}"))
            self.bad[f"bad/ambiguous {number}"] = "ambiguous"
        # Bytes that are not text, but that are with rucredstash's counter: what credstash wrote, but
        # for the one form that rucredstash writes, too.
        value = b"sixteen letters.\xff"
        for client in CLIENTS:
            name = f"client/{client}"
            # So long that no other reading is text, and that base64 in lines has some.
            text = "a password of theirs " * 5
            put(writer.row(f"{name}/text", text, client))
            self.good[f"{name}/text"] = (text.encode(), {})
            if client == "credstash":
                put(writer.ambiguous("bad/ambiguous bytes", value))
                self.bad["bad/ambiguous bytes"] = "ambiguous"
            else:
                put(writer.ambiguous(f"{name}/bytes", value, client))
                self.good[f"{name}/bytes"] = (value, {})
        put(writer.row("client/RIPEMD", "with a removed digest", digest="RIPEMD"))
        self.good["client/RIPEMD"] = (b"with a removed digest", {})
        row = writer.row("bad/retyped", "a password of some length", "nodecredstash")
        put(writer.retyped(row))
        put({**writer.disguised(row), "name": "bad/disguised"})
        self.bad |= {"bad/retyped": "malformed", "bad/disguised": "integrity"}
        put({**writer.row("bad/list", "s"), "tags": ["a", "b"]})
        put({**writer.row("bad/comment", "s"), "comment": 7})
        self.bad |= {"bad/list": "unsealable", "bad/comment": "unsealable"}
        put(writer.row("bad/context", "s", context={"not": "known"}))
        self.bad["bad/context"] = "context"
        # As large as an item can be: a seal has no room.
        put(writer.row("bad/large", "x" * 306_800))
        self.bad["bad/large"] = "too-large"
        self.stack.put("bad/stripped", "s")
        row = self.stack.row("bad/stripped")
        del row["seal"]
        put(row)
        self.bad["bad/stripped"] = "stripped"
        for version in range(1, DEEP + 1):
            put(writer.row("deep", f"value {version}", version=version, digest="SHA"))
        self.stack.put("sealed", "by coffer")
        for name in [name for name in self.good if name.startswith("buried/")]:
            self.stack.done("delete", name=name)
            self.buried.append(name)
        self.rows, self.entries = scan(self.stack.rows), scan(self.stack.entries)
        self.all = len(self.good) + len(self.bad) + DEEP + 1


@pytest.fixture(scope="module")
def rows(kms):
    return Rows(kms)


def test_a_dry_run_tells_and_changes_nothing(rows, faults):
    faults.calls()
    report = rotation.run(rows.stack, "reseal", dry_run=True, **HINTS)
    assert report["dry_run"] and report["seen"] == rows.all
    assert report["changed"] == len(rows.good) + DEEP
    assert report["failed"] == len(rows.bad) and report["skipped"] == 1
    assert scan(rows.stack.rows) == rows.rows
    kept = {key: item for key, item in scan(rows.stack.entries).items() if "row" in item}
    assert kept == {key: item for key, item in rows.entries.items() if "row" in item}
    assert "kms:GenerateDataKey" not in faults.calls()
    told = rotation.failures(rows.stack, "reseal")
    assert {name: reason for (name, _), reason in told.items()} == rows.bad


def test_every_dialect_is_given_a_seal_and_the_rest_is_left_to_the_byte(rows, kms, show):
    stack = rows.stack
    report = rotation.run(stack, "reseal", **HINTS)
    show(f"{report['changed']} resealed, left: {report['reasons']}")
    assert report["changed"] == len(rows.good) + DEEP and report["failed"] == len(rows.bad)
    told = rotation.failures(stack, "reseal")
    assert {name: reason for (name, _), reason in told.items()} == rows.bad
    after = scan(stack.rows)
    assert set(after) == set(rows.rows)
    for key, row in rows.rows.items():
        if key[0] in rows.bad or key[0] == "sealed":
            assert after[key] == row
            continue
        resealed = after[key]
        # Verified by other code than Coffer's.
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
    for name, (plaintext, context) in rows.good.items():
        if name in rows.buried:
            continue
        got = stack.get(name, context=context)
        assert plaintext_of(got) == plaintext and "dialect" not in got
        # A context is what it was put with.
        if context:
            assert stack.invoke("get", {"name": name}).code == "Forbidden"


def test_old_clients_read_what_was_resealed(rows, nodecredstash_as_root):
    for name, (plaintext, context) in rows.good.items():
        if name in rows.buried:
            continue
        try:
            text = plaintext.decode()
        except UnicodeDecodeError:
            continue
        read = {"table": rows.stack.table, "context": context, "region": REGION}
        assert credstash.getSecret(name, **read) == text
        asked = {"tableName": rows.stack.table, "name": name, "context": context}
        assert nodecredstash_as_root("getSecret", **asked) == {"ok": text}


def test_it_is_told_in_the_history(rows):
    stack = rows.stack
    events = [event for event in stack.history("deep") if event["operation"] == "reseal"]
    versions = [version for event in events for version in event.get("versions") or [event["version"]]]
    assert sorted(versions) == list(range(1, DEEP + 1))
    assert all(event["who"].startswith("arn:aws:states:") for event in events)
    assert stack.verify("deep") == {}
    for name in rows.buried:
        told = [event["operation"] for event in stack.history(name)]
        assert told == ["reseal", "delete"]
        assert stack.verify(name) == {}


def test_again_it_changes_nothing_and_what_is_sealed_costs_no_kms(rows, faults):
    before = scan(rows.stack.rows)
    faults.calls()
    report = rotation.run(rows.stack, "reseal", **HINTS)
    assert report["changed"] == 0 and report["failed"] == len(rows.bad)
    assert faults.calls()["kms:Decrypt"] <= 2 * len(rows.bad)
    assert scan(rows.stack.rows) == before


def test_a_name_with_hundreds_of_contexts_to_try_is_done_in_calls_that_answer(rows, kms):
    """One call of KMS for each, 400 a second: more than there is time for in one request."""
    writer, versions = Writer(kms, rows.key), range(1, 33)
    for version in versions:
        row = writer.row("guessed", "s", version=version, context={"not": "known"})
        rows.stack.rows.put_item(Item=row)
    contexts = [{"name": "guessed", "context": {"app": f"{n}"}} for n in range(300)]
    asked = {"name": "guessed", "action": "reseal", "dry_run": True, "contexts": contexts}
    told, more = [], {}
    while True:
        answer = rows.stack.patiently("rotate", **asked, **more)
        told += [(each["version"], each["reason"]) for each in answer["failures"]]
        if "next" not in answer:
            break
        more = {"next": answer["next"]}
    assert told == [(version, "context") for version in versions] and more
    for version in versions:
        rows.stack.rows.delete_item(Key={"name": "guessed", "version": f"{version:019}"})


def test_then_the_stack_refuses_legacy_rows_and_everything_opens(rows):
    stack = rows.stack = rows.rotating.deploy(rows.key, LegacyItems="refuse")
    for name in rows.buried:
        stack.done("restore", name=name)
    for name, (plaintext, context) in rows.good.items():
        assert plaintext_of(stack.get(name, context=context)) == plaintext
    for version in (1, DEEP):
        assert stack.get("deep", version=version)["secret"] == f"value {version}"
    for name, reason in rows.bad.items():
        answer = stack.invoke("get", {"name": name})
        assert answer.code == ("Malformed" if reason == "malformed" else "Integrity"), name


def test_the_owner_says_what_nobody_else_can(rows):
    """Contexts for one name, by both doors; dialects in a run alone; and no word makes a damaged row
    whole."""
    stack = rows.stack
    dialect = {"dialects": [{"name": "bad/ambiguous 0", "dialect": "credstash"}]}
    request = {"action": "reseal", "name": "bad/ambiguous 0", **dialect}
    for _, answer in stack.both("rotate", request):
        assert answer.code == "Invalid" and "state machine" in answer.message
    assert rotation.run(stack, "reseal", dry_run=True, **HINTS, **dialect)["changed"] == 1
    assert stack.invoke("get", {"name": "bad/ambiguous 0"}).code == "Integrity"
    for changed in (1, 0):
        assert rotation.run(stack, "reseal", **HINTS, **dialect)["changed"] == changed
    assert stack.get("bad/ambiguous 0")["secret"] == "seventeen letters"
    damaged = [n for n, why in rows.bad.items() if why in ("integrity", "malformed", "stripped")]
    everything = [{"name": name, "dialect": "rucredstash-le32"} for name in damaged]
    rotation.run(stack, "reseal", **HINTS, dialects=everything)
    told = {name: why for (name, _), why in rotation.failures(stack, "reseal").items()}
    for name in damaged:
        assert told[name] == rows.bad[name]
        version = next(key[1] for key in rows.rows if key[0] == name)
        assert scan(stack.rows)[name, version] == rows.rows[name, version]
    hint = {"contexts": [{"name": "bad/context", "context": {"not": "known"}}]}
    request = {"action": "reseal", "name": "bad/context", **hint}
    for number, (_, answer) in enumerate(stack.both("rotate", request)):
        assert (answer.body["changed"], answer.body["skipped"]) == ((1, 0), (0, 1))[number]
    assert stack.get("bad/context", context={"not": "known"})["secret"] == "s"


def test_a_dialect_that_contradicts_the_row_changes_nothing(rows, kms):
    stack, writer = rows.stack, Writer(kms, rows.key)
    text = "so long that its other reading is not text by chance"
    claims = {"claimed/credstash": "rucredstash-le32", "claimed/rucredstash": "credstash"}
    for name in claims:
        stack.rows.put_item(Item=writer.row(name, text, name.removeprefix("claimed/")))
    before = {name: stack.versions_of(name) for name in claims}
    dialects = [{"name": name, "dialect": dialect} for name, dialect in claims.items()]
    rotation.run(stack, "reseal", dialects=dialects)
    told = {name: reason for (name, _), reason in rotation.failures(stack, "reseal").items()}
    assert [told[name] for name in claims] == ["dialect", "dialect"]
    assert {name: stack.versions_of(name) for name in claims} == before
    rotation.run(stack, "reseal")
    for name in claims:
        assert stack.get(name)["secret"] == text


def test_a_wrong_dialect_can_be_undone(rows):
    """What a row was before it was sealed again is kept for the recovery window."""
    stack, name = rows.stack, "bad/ambiguous 1"
    before = rows.rows[name, f"{1:019}"]
    say = lambda dialect: {"dialects": [{"name": name, "dialect": dialect}]}
    assert rotation.run(stack, "reseal", **HINTS, **say("rucredstash-le32"))["changed"] == 1
    assert stack.get(name)["secret"] != "seventeen letters"
    (entry,) = stack.entries_of(name, "deleted#")
    assert entry["before_reseal"] is True
    assert {"name": name, **entry["row"]} == before
    assert int(entry["ttl"]) == pytest.approx(time.time() + 30 * 24 * 3600, abs=600)
    # It is no deleted version, nor is it resealed.
    assert stack.invoke("restore", {"name": name}).code == "NotFound"
    assert stack.invoke("restore", {"name": name, "version": 1}).code == "NotFound"
    assert rotation.run(stack, "reseal", **HINTS)["changed"] == 0
    assert stack.entries_of(name, "deleted#") == [entry]
    back = {"name": name, "version": 1, "before_reseal": True}
    for _, answer in stack.both("restore", {"name": name, "before_reseal": True}):
        assert answer.code == "Invalid" and "`version`" in answer.message
    for _, answer in stack.both("restore", back):
        assert answer.code == "Exists" and "elete it first" in answer.message
    stack.done("delete", name=name, version=1)
    assert stack.done("restore", **back)["versions"] == [1]
    assert stack.versions_of(name) == [before]
    assert stack.invoke("restore", back).code == "NotFound"
    assert rotation.run(stack, "reseal", **HINTS, **say("credstash"))["changed"] == 1
    assert stack.get(name)["secret"] == "seventeen letters"
    assert stack.verify(name) == {}
    # And a forced delete takes all of it.
    assert stack.done("delete", name=name, force=True)["versions"] == [1]
    assert stack.entries_of(name, "deleted#") == stack.versions_of(name) == []


def unpadded(stack, writer, name, *versions, **how):
    """Rows whose versions are numbers as clients wrote them before 2016."""
    for version in versions:
        row = writer.row(name, f"value {version}", **how)
        stack.rows.put_item(Item={**row, "version": str(version)})


def labels(rows):
    return [row["version"] for row in rows]


def test_numbers_are_padded_and_the_same_version_is_current(stack, kms, name):
    writer = Writer(kms, stack.key_arn)
    unpadded(stack, writer, name, *range(2, 10))
    # Under another data key, and with what it was before in the ledger.
    unpadded(stack, writer, name, 1, digest="SHA")
    assert stack.get(name)["secret"] == "value 9"
    # Nothing that is put now could become current.
    assert stack.invoke("put", {"name": name, "secret": "ten"}).code == "Exists"
    rows = stack.versions_of(name)
    dry = stack.done("reseal", action="reseal", name=name, dry_run=True)
    assert (dry["changed"], dry["failed"]) == (9, 0), dry
    assert stack.versions_of(name) == rows
    report = stack.done("reseal", action="reseal", name=name)
    assert (report["changed"], report["failed"]) == (9, 0), report
    assert labels(stack.versions_of(name)) == [f"{version:019}" for version in range(1, 10)]
    for version in range(1, 10):
        got = stack.get(name, version=version)
        assert (got["secret"], "dialect" in got) == (f"value {version}", False)
    assert stack.get(name)["version"] == 9
    told = [event["version"] for event in stack.history(name)]
    assert sorted(told) == list(range(1, 10))
    assert stack.put(name, "ten")["version"] == 10
    (entry,) = stack.entries_of(name, "deleted#")
    assert entry["before_reseal"] is True and entry["row"]["version"] == "1"
    # It comes back under its padded number, once the sealed version is gone from there.
    back = {"name": name, "version": 1, "before_reseal": True}
    answer = stack.invoke("restore", back)
    assert answer.code == "Exists" and "elete it first" in answer.message
    stack.done("delete", name=name, version=1)
    assert stack.done("restore", **back)["versions"] == [1]
    assert labels(stack.versions_of(name)) == [f"{version:019}" for version in range(1, 11)]
    assert stack.get(name)["version"] == 10
    got = stack.get(name, version=1)
    assert (got["secret"], got["dialect"]) == ("value 1", "credstash")
    assert stack.done("reseal", action="reseal", name=name)["changed"] == 1
    assert stack.verify(name) == {}


def test_what_comes_back_never_hides_the_current_version(stack, kms, name):
    writer = Writer(kms, stack.key_arn)
    for each in ("legacy", "sealed"):
        unpadded(stack, writer, f"{name}/{each}", 7)
        stack.done("delete", name=f"{name}/{each}")
    assert stack.done("reseal", action="reseal", name=f"{name}/sealed")["changed"] == 1
    for each in ("legacy", "sealed"):
        assert stack.put(f"{name}/{each}", "eighth")["version"] == 8
    # Without a seal, a row can get its zeros.
    assert stack.done("restore", name=f"{name}/legacy", version=7)["versions"] == [7]
    assert labels(stack.versions_of(f"{name}/legacy")) == [f"{7:019}", f"{8:019}"]
    answer = stack.invoke("restore", {"name": f"{name}/sealed", "version": 7})
    assert answer.code == "Exists" and "without leading zeros" in answer.message
    for each in ("legacy", "sealed"):
        assert stack.get(f"{name}/{each}")["secret"] == "eighth"
        assert stack.put(f"{name}/{each}", "ninth")["version"] == 9
        assert stack.verify(f"{name}/{each}") == {}
    # With force, no form of the number is left.
    unpadded(stack, writer, f"{name}/sealed", 7)
    stack.done("delete", name=f"{name}/sealed", version=7, force=True)
    assert stack.invoke("restore", {"name": f"{name}/sealed", "version": 7}).code == "NotFound"


def test_a_wrong_hint_can_be_undone_whichever_it_was(rows, kms):
    stack, writer = rows.stack, Writer(kms, rows.key)
    text = "wrongly hinted at"
    while True:
        row = writer.row("hinted/rucredstash", text, "rucredstash")
        stack.rows.put_item(Item=row)
        report = rotation.run(stack, "reseal", dry_run=True)
        if rotation.failures(stack, "reseal").get(("hinted/rucredstash", 1)) == "ambiguous":
            break
    hint = {"dialects": [{"name": "hinted/rucredstash", "dialect": "credstash"}]}
    assert rotation.run(stack, "reseal", **hint)["changed"] >= 1
    assert stack.get("hinted/rucredstash").get("secret") != text
    stack.done("delete", name="hinted/rucredstash", version=1)
    back = {"name": "hinted/rucredstash", "version": 1, "before_reseal": True}
    assert stack.done("restore", **back)["versions"] == [1]
    assert stack.versions_of("hinted/rucredstash") == [row]
    hint = {"dialects": [{"name": "hinted/rucredstash", "dialect": "rucredstash-le32"}]}
    rotation.run(stack, "reseal", **hint)
    assert stack.get("hinted/rucredstash")["secret"] == text
    stack.done("delete", name="hinted/rucredstash", force=True)


def test_what_was_sealed_unpadded_is_sealed_for_its_padded_number(stack, kms, name):
    row = Writer(kms, stack.key_arn).row(name, "sealed", "nodecredstash")
    row |= {"version": "7", "context": {}, "revision": Binary(b"0123456789abcdef")}
    key = kms.decrypt(CiphertextBlob=base64.b64decode(row["key"]))["Plaintext"]
    row["seal"] = seal_of(key, row)
    stack.rows.put_item(Item=row)
    assert stack.get(name)["secret"] == "sealed"
    assert stack.done("reseal", action="reseal", name=name)["changed"] == 1
    (after,) = stack.versions_of(name)
    assert after["version"] == f"{7:019}" and after["seal"] == seal_of(key, after)
    # The same ciphertext under the same data key.
    for field in ("key", "contents", "hmac", "context", "revision"):
        assert after[field] == row[field]
    got = stack.get(name)
    assert (got["secret"], got["version"]) == ("sealed", 7)
    assert stack.entries_of(name, "deleted#") == []
    assert stack.put(name, "next")["version"] == 8
    # One whose seal does not hold is not given another.
    damaged = {**row, "version": "9", "seal": row["seal"][::-1]}
    stack.rows.put_item(Item=damaged)
    report = stack.done("reseal", action="reseal", name=name)
    assert (report["changed"], report["reasons"]) == (0, {"integrity": 1})
    assert stack.versions_of(name)[-1] == damaged


def test_what_padding_would_put_elsewhere_is_sealed_where_it_is(stack, kms, name):
    writer = Writer(kms, stack.key_arn)
    # As texts "2" is above "10": padded, the other one would be current.
    unpadded(stack, writer, f"{name}/order", 2, 10)
    # The padded number is another version's.
    unpadded(stack, writer, f"{name}/exists", 7)
    stack.rows.put_item(Item=writer.row(f"{name}/exists", "padded", version=7))
    for reason in ("order", "exists"):
        request = {"action": "reseal", "name": f"{name}/{reason}"}
        for dry_run in (True, False):
            report = stack.done("reseal", **request, dry_run=dry_run)
            assert (report["changed"], report["failed"]) == (2, 0), report
        assert all("seal" in row for row in stack.versions_of(f"{name}/{reason}"))
        # It is told of once that is all that is left.
        report = stack.done("reseal", **request)
        assert (report["changed"], report["reasons"]) == (0, {reason: 1})
        answer = stack.invoke("put", {"name": f"{name}/{reason}", "secret": "s"})
        assert answer.code == "Exists" and f"`{reason}`" in answer.message
    assert labels(stack.versions_of(f"{name}/order")) == [f"{10:019}", "2"]
    assert stack.get(f"{name}/order")["secret"] == "value 2"
    assert labels(stack.versions_of(f"{name}/exists")) == [f"{7:019}", "7"]
    # What is deleted keeps its number, and comes back to its place.
    unpadded(stack, writer, f"{name}/deleted", 3)
    stack.done("delete", name=f"{name}/deleted")
    assert stack.done("reseal", action="reseal", name=f"{name}/deleted")["changed"] == 1
    (entry,) = stack.entries_of(f"{name}/deleted", "deleted#")
    assert entry["row"]["version"] == "3" and "seal" in entry["row"]
    stack.done("restore", name=f"{name}/deleted")
    assert stack.get(f"{name}/deleted")["secret"] == "value 3"
