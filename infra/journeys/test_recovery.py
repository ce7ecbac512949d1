"""delete and restore: what is moved is moved whole, and nothing is lost on the way."""

import os
import time
from concurrent.futures import ThreadPoolExecutor
from datetime import datetime, timedelta, timezone

import pytest
from conftest import client
from legacy import Writer

NAMES = 50
VERSIONS = 250
RECOVERY = f"recovery/{os.getpid()}"


def numbers(rows):
    return [int(row["version"]) for row in rows]


def deleted(stack, name):
    return sorted(int(entry["row"]["version"]) for entry in stack.entries_of(name, "deleted#"))


def test_what_is_deleted_is_gone_and_comes_back_as_it_was(stack, name):
    for number in range(1, 4):
        stack.put(name, f"value {number}", comment=f"comment {number}", context={"a": "b"})
    before = stack.versions_of(name)
    answer = stack.done("delete", name=name)
    until = datetime.fromisoformat(answer["recoverable_until"])
    days = (until - datetime.now(timezone.utc)) / timedelta(days=1)
    assert (answer["name"], answer["versions"]) == (name, [1, 2, 3])
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


def test_both_doors_delete_and_restore(stack, name):
    stack.put(name, "s")
    for door in (stack.invoke, stack.by_http):
        answer = door("delete", {"name": name, "version": 1, "recovery_window_in_days": 7})
        assert (answer.code, answer.body["versions"]) == ("OK", [1])
        assert stack.versions_of(name) == []
        answer = door("restore", {"name": name, "version": 1})
        assert (answer.code, answer.body["versions"]) == ("OK", [1])
        assert stack.get(name)["secret"] == "s"
    answer = stack.by_http("delete", {"name": name, "force": True})
    assert answer.body == {"name": name, "versions": [1]}


def test_one_version_goes_and_comes_back_alone(stack, name):
    for number in range(1, 4):
        stack.put(name, f"value {number}")
    assert stack.done("delete", name=name, version=2)["versions"] == [2]
    assert numbers(stack.versions_of(name)) == [1, 3]
    assert stack.get(name, stage="AWSPREVIOUS")["version"] == 1
    # The highest goes: the one below it is current, and its number is not given again.
    assert stack.done("delete", name=name, version="3")["versions"] == [3]
    assert stack.get(name)["secret"] == "value 1"
    assert stack.put(name, "value 4")["version"] == 4
    assert stack.done("restore", name=name, version=3)["versions"] == [3]
    assert stack.done("restore", name=name)["versions"] == [2]
    assert numbers(stack.versions_of(name)) == [1, 2, 3, 4]
    assert [stack.get(name, version=n)["secret"][-1] for n in (1, 2, 3, 4)] == list("1234")


def test_to_delete_twice_or_restore_twice_is_no_more_than_once(stack, name):
    stack.put(name, "s")
    first = stack.done("delete", name=name, recovery_window_in_days=7)
    again = stack.done("delete", name=name)
    assert (again["versions"], again["recoverable_until"]) == ([], first["recoverable_until"])
    stack.done("restore", name=name)
    for _, answer in stack.both("restore", {"name": name}):
        assert answer.code == "NotFound"
    assert stack.get(name)["secret"] == "s"


def test_what_was_never_there_is_not_found(stack, name):
    stack.put(f"{name}/other", "s")
    for request in ({"name": name}, {"name": name, "force": True}, {"name": name, "version": 1},
                    {"name": f"{name}/other", "version": 2}):
        for _, answer in stack.both("delete", request):
            assert answer.code == "NotFound"
    for _, answer in stack.both("restore", {"name": name}):
        assert answer.code == "NotFound"
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
def test_bad_requests_delete_nothing(stack, name, fields):
    stack.put(name, "s")
    answer = stack.invoke("delete", {"name": name, **fields})
    assert answer.code == "Invalid" and "`" in answer.message
    assert numbers(stack.versions_of(name)) == [1]
    assert stack.entries_of(name, "deleted#") == []


def test_force_is_for_good_and_takes_what_awaits_recovery(stack, name):
    for number in range(3):
        stack.put(name, f"value {number}")
    stack.done("delete", name=name, version=1)
    assert stack.done("delete", name=name, force=True) == {"name": name, "versions": [1, 2, 3]}
    assert stack.versions_of(name) == []
    assert stack.entries_of(name, "deleted#") == []
    assert stack.invoke("restore", {"name": name}).code == "NotFound"
    assert all(event["force"] for event in stack.history(name)[:2])
    # Soft first, then for good.
    stack.put(name, "anew")
    stack.done("delete", name=name)
    assert stack.done("delete", name=name, force=True)["versions"] == [4]
    assert stack.entries_of(name, "deleted#") == []
    assert stack.verify(name) == {}


def test_a_name_that_was_put_anew_is_not_restored_over(stack, name):
    stack.put(name, "old")
    stack.done("delete", name=name)
    # No number is given twice, so both can be had.
    assert stack.put(name, "new")["version"] == 2
    for _, answer in stack.both("restore", {"name": name}):
        assert answer.code == "Exists"
        assert "`version`" in answer.message and "elete" in answer.message
    assert stack.get(name)["secret"] == "new"
    assert deleted(stack, name) == [1]
    # The first way on.
    assert stack.done("restore", name=name, version=1)["versions"] == [1]
    assert stack.get(name)["secret"] == "new"
    assert stack.get(name, version=1)["secret"] == "old"
    # The other one.
    stack.done("delete", name=name)
    stack.put(name, "newest")
    assert stack.invoke("restore", {"name": name}).code == "Exists"
    stack.done("delete", name=name)
    assert stack.done("restore", name=name)["versions"] == [1, 2, 3]
    assert stack.verify(name) == {}


def test_a_name_that_an_old_client_put_anew_is_not_restored_over(stack, credstash, name):
    stack.put(name, "old")
    stack.done("delete", name=name)
    assert credstash("put", name, "theirs")[0] == 0
    assert stack.invoke("restore", {"name": name}).code == "Exists"
    assert stack.invoke("restore", {"name": name, "version": 1}).code == "Exists"
    assert stack.get(name)["secret"] == "theirs"
    # Two rows of one version: neither is lost, and the last one deleted comes back, whichever
    # window is the longer.
    old = int(stack.entries_of(name, "deleted#")[0]["deleted_at"])
    while time.time() < old + 2:
        time.sleep(0.1)
    stack.done("delete", name=name, recovery_window_in_days=7)
    assert deleted(stack, name) == [1, 1]
    assert stack.done("restore", name=name)["versions"] == [1]
    assert stack.get(name)["secret"] == "theirs"
    assert deleted(stack, name) == [1]
    answer = stack.invoke("restore", {"name": name})
    assert answer.code == "Exists" and "`deleted_before`" in answer.message
    # Which is the way to the other one.
    stack.done("delete", name=name)
    before = datetime.fromtimestamp(old, timezone.utc).isoformat()
    assert stack.done("restore", name=name, deleted_before=before)["versions"] == [1]
    assert stack.get(name)["secret"] == "old"
    assert stack.verify(name) == {}


def test_a_number_that_is_taken_keeps_nothing_else_from_coming_back(stack, credstash, name):
    for number in range(1, 121):
        stack.put(name, f"value {number}")
    stack.done("delete", name=name, version=60)
    assert credstash("put", name, "theirs", "-v", "60")[0] == 0
    stack.done("delete", name=name)
    assert deleted(stack, name).count(60) == 2
    # Interrupted after its first transaction, as it were, and asked again twice.
    stack.done("restore", name=name, version=120)
    assert stack.done("restore", name=name)["versions"] == list(range(1, 120))
    assert stack.get(name, version=60)["secret"] == "theirs"
    assert stack.invoke("restore", {"name": name}).code == "Exists"
    assert deleted(stack, name) == [60]
    assert stack.done("delete", name=name, version=60, force=True)["versions"] == [60]
    assert deleted(stack, name) == []
    assert numbers(stack.versions_of(name)) == [n for n in range(1, 121) if n != 60]


def test_versions_that_look_alike_are_told_apart(stack, name):
    """Padded and not, and one with the mark between a version and its mark in it."""
    stack.put(name, "s")
    row = stack.row(name)
    for version in ("1", "1#x", f"{1:019}#0"):
        stack.rows.put_item(Item={**row, "version": version})
    stack.done("delete", name=name)
    assert stack.done("delete", name=name, version=1, force=True)["versions"] == [1]
    left = sorted(entry["row"]["version"] for entry in stack.entries_of(name, "deleted#"))
    assert left == [f"{1:019}#0", "1", "1#x"]
    # Padded there is none any more: now the other one is meant.
    assert stack.done("delete", name=name, version=1, force=True)["versions"] == [1]
    stack.done("restore", name=name, version="1#x")
    assert [row["version"] for row in stack.versions_of(name)] == ["1#x"]


def test_what_has_had_its_time_is_not_restored_though_dynamodb_has_it_still(stack, name):
    stack.put(name, "s")
    stack.done("delete", name=name)
    (entry,) = stack.entries_of(name, "deleted#")
    stack.entries.put_item(Item={**entry, "ttl": 1})
    assert stack.invoke("restore", {"name": name}).code == "NotFound"
    assert stack.versions_of(name) == []


def test_rows_of_other_clients_come_back_as_they_were(stack, credstash, name):
    """Whatever they hold: their own attributes, types that Coffer never writes, odd versions."""
    assert credstash("put", name, "theirs", "-v", "7", "-c", "why")[0] == 0
    (row,) = stack.versions_of(name)
    odd = {**row, "ttl": 5, "tags": {"x", "y"}, "list": [1, None, {"a": b"b"}], "flag": False}
    stack.rows.put_item(Item=odd)
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
    assert stack.versions_of(name) == before
    assert credstash("get", name, "-v", f"{7:019}")[1].strip() == "theirs"


def test_the_largest_version_can_be_deleted_and_restored(stack, name):
    short = name.replace("/", "")[-6:]
    answer = stack.invoke("put", {"name": short, "secret": "x" * 307_200})
    most = next(int(word) for word in answer.message.split() if word.isdigit())
    for _ in range(12):
        stack.put(short, "x" * most)
    before = stack.versions_of(short)
    assert stack.done("delete", name=short)["versions"] == list(range(1, 13))
    assert stack.done("restore", name=short)["versions"] == list(range(1, 13))
    assert stack.versions_of(short) == before
    assert stack.done("delete", name=short, force=True)["versions"] == list(range(1, 13))


def test_while_it_is_deleted_the_secret_is_there_until_it_is_gone(stack, name):
    """And while it is restored, the newest version is there first."""
    for number in range(120):
        stack.put(name, f"value {number + 1}")
    seen = []

    def watch(going):
        while not going.done():
            answer = stack.invoke("get", {"name": name})
            assert answer.code in ("OK", "NotFound"), answer
            seen.append(answer.body["version"] if answer.code == "OK" else None)

    with ThreadPoolExecutor(4) as pool:
        for verb, order in (("delete", [120, None]), ("restore", [None, 120])):
            seen.clear()
            going = pool.submit(stack.done, verb, name=name)
            list(pool.map(watch, [going] * 3))
            assert len(going.result()["versions"]) == 120
            assert seen and set(seen) <= set(order)
    assert len(stack.versions_of(name)) == 120


def test_puts_and_deletes_at_the_same_time_lose_nothing(stack, name):
    """Every version that was put is live or awaits recovery, each once, and all come back."""

    def put(number):
        return stack.invoke("put", {"name": name, "secret": f"value {number}"})

    def delete(_):
        return stack.invoke("delete", {"name": name})

    with ThreadPoolExecutor(12) as pool:
        puts, deletes = pool.map(put, range(60)), pool.map(delete, range(6))
        answers = {a.body["version"]: number for number, a in enumerate(puts)}
        assert {answer.code for answer in deletes} <= {"OK", "NotFound"}
    assert sorted(answers) == list(range(1, 61))
    assert sorted(numbers(stack.versions_of(name)) + deleted(stack, name)) == sorted(answers)
    assert stack.verify(name) == {}
    stack.done("delete", name=name)
    stack.done("restore", name=name)
    assert numbers(stack.versions_of(name)) == list(range(1, 61))
    for version, number in answers.items():
        assert stack.get(name, version=version)["secret"] == f"value {number}"


@pytest.fixture(scope="module")
def many(stack):
    """50 names with 250 versions each, all of which open: two of them are put, and the others are
    rows under the same legacy data key, which binds no version."""
    def one(number):
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
        return list(pool.map(one, range(NAMES)))


def test_fifty_names_with_250_versions_all_deleted_half_restored(
    stack, many, credstash, nodecredstash
):
    rows = {name: stack.versions_of(name) for name in many}
    assert all(len(found) == VERSIONS for found in rows.values())
    with ThreadPoolExecutor(4) as pool:
        for answer in pool.map(lambda name: stack.done("delete", name=name), many):
            assert answer["versions"] == list(range(1, VERSIONS + 1))
    assert all(stack.versions_of(name) == [] for name in many)
    back, gone = many[::2], many[1::2]
    with ThreadPoolExecutor(4) as pool:
        for answer in pool.map(lambda name: stack.done("restore", name=name), back):
            assert answer["versions"] == list(range(1, VERSIONS + 1))
    for name in back:
        assert stack.versions_of(name) == rows[name]
        for version, value in ((None, "newest"), (1, "1"), (2, "2"), (100, "2")):
            request = {} if version is None else {"version": version}
            assert stack.get(name, **request)["secret"] == f"{name} {value}"
    for name in gone:
        assert stack.versions_of(name) == []
        assert deleted(stack, name) == list(range(1, VERSIONS + 1))
        assert stack.invoke("get", {"name": name}).code == "NotFound"
        assert stack.invoke("get", {"name": name, "version": 100}).code == "NotFound"
    listed = stack.pages("list", "secrets", prefix=RECOVERY, limit=1000)
    assert [entry["name"] for entry in listed] == sorted(back)
    for name in back[:3]:
        assert credstash("get", name)[1].strip() == f"{name} newest"
        assert credstash("get", name, "-v", f"{100:019}")[1].strip() == f"{name} 2"
        assert nodecredstash("getSecret", name=name)["ok"] == f"{name} newest"
    for name in gone[:3]:
        assert credstash("get", name)[0] != 0
        assert "ok" not in nodecredstash("getSecret", name=name)
    for name in many[:4]:
        assert stack.verify(name) == {}
        moved = [event for event in stack.history(name) if event["operation"] == "delete"]
        told = [version for event in moved for version in event["versions"]]
        assert sorted(told) == list(range(1, VERSIONS + 1))


def test_a_reseal_leaves_the_recovery_window_of_a_deleted_version_alone(stack, faults, name):
    """delete (7 days), reseal reads, restore, delete (30 days), reseal writes."""
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
        assert not reseal.done(), "the reseal was over before it could be crossed"
        (long,) = stack.entries_of(name, "deleted#")
        answer = reseal.result()
    assert (answer.code, answer.body["changed"]) == ("OK", 1), answer
    kept = stack.entries_of(name, "deleted#")
    (entry,) = [each for each in kept if not each.get("before_reseal")]
    assert "seal" in entry["row"] and "seal" not in short["row"]
    for attribute in ("entry", "ttl", "sequence", "deleted_at"):
        assert entry[attribute] == long[attribute]
    assert int(long["ttl"]) - int(short["ttl"]) > 20 * 24 * 3600
    # What it was before goes when it does.
    (before,) = [each for each in kept if each.get("before_reseal")]
    assert before["ttl"] == long["ttl"] and before["row"] == short["row"]
    assert stack.done("restore", name=name)["versions"] == [1]
    assert stack.get(name)["secret"] == "s"
    assert stack.verify(name) == {}
