"""Rotation policies: put, changed, cancelled; renewed when due, once, and never what is deleted."""

import base64
import json
import os
import string
import time
from concurrent.futures import ThreadPoolExecutor
from datetime import datetime, timedelta, timezone
from zoneinfo import ZoneInfo

import pytest
import rotation
from conftest import ACCOUNT, REGION, allow, client
from legacy import Writer

EACH = {"require_each_included_type": True}
RULES = {"length": 20, "exclude_punctuation": True, **EACH}
DIGITS = {"exclude_lowercase": True, "exclude_uppercase": True, "exclude_punctuation": True}
PRINTABLE = string.ascii_letters + string.digits + string.punctuation
# This leaves one value: A, as often as the length says.
ALL_BUT_A = PRINTABLE.replace("A", "")


def put_policy(stack, name, **fields):
    return stack.done("policy", policy="put", name=name, **fields)


def moment(text):
    return datetime.fromisoformat(text)


def now():
    return datetime.now(timezone.utc)


def make_due(stack, name, ago=60):
    """As if so many seconds had passed since it was due."""
    stack.entries.update_item(
        Key={"name": "/policies", "entry": f"policy#{name}"},
        UpdateExpression="SET due = :due",
        ExpressionAttributeValues={":due": int(time.time()) - ago},
    )


def store(stack, name, **attributes):
    """Changes a policy in the ledger, past every check."""
    stack.entries.update_item(
        Key={"name": "/policies", "entry": f"policy#{name}"},
        UpdateExpression="SET " + ", ".join(f"#{key} = :{key}" for key in attributes),
        ExpressionAttributeNames={f"#{key}": key for key in attributes},
        ExpressionAttributeValues={f":{key}": value for key, value in attributes.items()},
    )


def reasons(stack):
    """A run, and what it could not renew."""
    failures = rotation.run(stack, "renew").get("failures", [])
    return {each["name"]: each["reason"] for each in failures}


def is_suspended(stack, name):
    """By both doors. A suspended policy shows no next time."""
    answers = [answer.body for _, answer in stack.both("policy", {"policy": "get", "name": name})]
    suspended = {answer.get("suspended", False) for answer in answers}
    assert {"next_rotation_at" not in answer for answer in answers} == suspended
    [suspended] = suspended
    return suspended


def told(stack, name):
    return [event["operation"] for event in stack.history(name)]


def test_a_policy_is_put_got_and_cancelled_by_both_doors(stack, name):
    stack.put(name, "s")
    fields = {"schedule": "cron(0 3 ? * SUN *)", "timezone": "Europe/Paris", "generate": RULES}
    answers = [put for _, put in stack.both("policy", {"policy": "put", "name": name, **fields})]
    answers += [got for _, got in stack.both("policy", {"policy": "get", "name": name})]
    for answer in answers:
        assert answer.code == "OK", answer
        body = dict(answer.body)
        due = moment(body.pop("next_rotation_at")).astimezone(ZoneInfo("Europe/Paris"))
        assert (due.weekday(), due.hour, due.minute) == (6, 3, 0) and due > now()
        assert body == {"name": name, **fields}
    assert stack.invoke("policy", {"policy": "cancel", "name": name}).body == {"name": name}
    for verb in ("get", "cancel"):
        for origin, answer in stack.both("policy", {"policy": verb, "name": name}):
            assert answer.code == "NotFound"
            assert answer.status == (404 if origin == "http" else None)
    # It can be put anew; and what changes nothing is no event.
    for _ in range(2):
        put_policy(stack, name, days=1)
    assert told(stack, name) == ["policy", "cancel", "policy", "put"]
    assert stack.by_http("policy", {"policy": "cancel", "name": name}).status == 200
    assert stack.verify(name) == {}


@pytest.mark.parametrize(
    "fields",
    [
        {},
        {"days": 0},
        {"days": 3651},
        {"days": -1},
        {"days": "many"},
        {"days": 1, "schedule": "rate(1 day)"},
        {"days": 1, "timezone": "UTC"},
        {"schedule": "rate(0 days)"},
        {"schedule": "every day"},
        {"schedule": "cron(0 3 * * *)"},
        {"schedule": "cron(0 3 * * * *)"},
        {"schedule": "cron(0 3 30 2 ? *)"},
        {"schedule": "cron(0 3 1 1 ? 2001)"},
        {"schedule": "at(2030-01-01T00:00:00)"},
        {"schedule": "rate(1 day)", "timezone": "Europe/Paris"},
        {"schedule": "cron(0 3 * * ? *)", "timezone": "Mars/Olympus"},
        {"schedule": "cron(" + "*," * 200 + "* 3 * * ? *)"},
        {"schedule": "cron(0 3 * * ? *)", "timezone": "U" * 257},
        {"days": 1, "generate": {"length": 0}},
        {"days": 1, "generate": {"length": 19, **DIGITS}},
        {"days": 1, "generate": {"exclude_characters": ALL_BUT_A}},
        {"days": 1, "generate": {"exclude_characters": "0" * 257}},
        {"days": 1, "generate": {"exclude_characters": string.digits, **EACH}},
        {"days": 1, "generate": {"template": "{}"}},
        {"days": 1, "generate": {"key": "password"}},
        {"days": 1, "generate": {"template": "[]", "key": "password"}},
        {"days": 1, "generate": {"template": "{", "key": "password"}},
        {"days": 1, "generate": {"template": '{"a":1,"a":2}', "key": "password"}},
        {"days": 1, "generate": {"template": "{}", "key": ""}},
        {"days": 1, "generate": {"template": json.dumps({"a": "x" * 4096}), "key": "password"}},
        {"days": 1, "generate": {"symbols": True}},
        {"days": 1, "context": {"": "x"}},
        {"days": 1, "pl4nted": 1},
    ],
    ids=lambda fields: str(fields)[:80],
)
def test_a_policy_that_cannot_be_is_refused(stack, name, fields):
    stack.put(name, "s")
    for _, answer in stack.both("policy", {"policy": "put", "name": name, **fields}):
        assert answer.code == "Invalid"
        assert "pl4nted" not in json.dumps(answer.body) + answer.log
    assert stack.invoke("policy", {"policy": "get", "name": name}).code == "NotFound"
    assert told(stack, name) == ["put"]


def test_a_policy_follows_a_version(stack, name):
    for _, answer in stack.both("policy", {"policy": "put", "name": name, "days": 1}):
        assert answer.code == "NotFound"
    assert stack.invoke("policy", {"policy": "put", "name": "a//b", "days": 1}).code == "Invalid"
    assert stack.invoke("policy", {"name": name}).code == "Invalid"
    assert stack.entries_of(name) == []


def test_what_is_due_is_renewed_once_and_what_was_missed_is_made_up_for(stack, name):
    stack.put(name, "first", comment="why", context={"app": "web"})
    put_policy(stack, name, schedule="rate(2 hours)", generate=RULES)
    # Ten windows ago.
    make_due(stack, name, ago=20 * 3600)
    report = rotation.run(stack, "renew", dry_run=True)
    assert report["changed"] == 1 and report["dry_run"]
    assert len(stack.versions_of(name)) == 1
    execution = rotation.start(stack, "renew")
    ended = rotation.ended(execution)
    assert json.loads(ended["output"])["changed"] == 1
    assert rotation.run(stack, "renew")["changed"] == 0
    assert len(stack.versions_of(name)) == 2

    got = stack.get(name, context={"app": "web"})
    assert (got["version"], got["comment"]) == (2, "why")
    assert len(got["secret"]) == 20 and got["secret"].isalnum()
    for kind in (string.ascii_lowercase, string.ascii_uppercase, string.digits):
        assert set(got["secret"]) & set(kind)
    before = stack.get(name, stage="AWSPREVIOUS", context={"app": "web"})
    assert before["secret"] == "first"
    assert stack.invoke("get", {"name": name}).code == "Forbidden"

    policy = stack.done("policy", policy="get", name=name)
    late = moment(policy["next_rotation_at"]) - moment(policy["last_rotated_at"])
    assert late == timedelta(hours=2) and moment(policy["last_rotated_at"]) <= now()
    events = stack.history(name)
    assert [event["operation"] for event in events] == ["renew", "policy", "put"]
    assert (events[0]["version"], events[0]["who"]) == (2, execution)
    assert stack.verify(name) == {}


def test_the_next_time_is_of_the_calendar(stack, name):
    stack.put(name, "s")
    leap = put_policy(stack, name, schedule="cron(0 0 29 2 ? *)")
    due = moment(leap["next_rotation_at"])
    assert (due.month, due.day) == (2, 29) and due > now()
    daily = put_policy(stack, name, schedule="cron(30 2 * * ? *)", timezone="America/New_York")
    local = moment(daily["next_rotation_at"]).astimezone(ZoneInfo("America/New_York"))
    assert (local.hour, local.minute) == (2, 30)
    assert stack.done("policy", policy="get", name=name) == daily
    # Another kind of value leaves the time, another schedule sets it anew.
    make_due(stack, name, ago=5)
    other = put_policy(
        stack, name, schedule="cron(30 2 * * ? *)", timezone="America/New_York", generate=RULES
    )
    assert moment(other["next_rotation_at"]) < now()
    assert moment(put_policy(stack, name, days=3)["next_rotation_at"]) > now() + timedelta(days=2)


def test_what_is_cancelled_is_renewed_no_more(stack, name):
    stack.put(name, "s")
    put_policy(stack, name, days=1)
    make_due(stack, name)
    stack.done("policy", policy="cancel", name=name)
    rotation.run(stack, "renew")
    assert len(stack.versions_of(name)) == 1
    assert stack.invoke("rotate", {"action": "renew", "name": name}).code == "NotFound"


def test_a_name_that_is_deleted_while_due_is_left_and_made_up_for_when_restored(stack, name):
    stack.put(name, "s")
    put_policy(stack, name, days=1)
    make_due(stack, name, ago=10 * 86400)
    stack.done("delete", name=name)
    for _ in range(2):
        report = rotation.run(stack, "renew")
        assert report["failed"] == 0
    assert stack.versions_of(name) == []
    assert stack.invoke("rotate", {"action": "renew", "name": name}).code == "NotFound"
    stack.done("restore", name=name)
    for _ in range(2):
        rotation.run(stack, "renew")
    assert len(stack.versions_of(name)) == 2
    assert told(stack, name) == ["renew", "restore", "delete", "policy", "put"]
    assert not is_suspended(stack, name)
    # For good, its policy goes with it: who puts the name anew has not asked for one.
    stack.done("delete", name=name, force=True)
    assert stack.invoke("policy", {"policy": "get", "name": name}).code == "NotFound"
    stack.put(name, "anew")
    rotation.run(stack, "renew")
    assert stack.get(name)["secret"] == "anew"
    assert stack.verify(name) == {}


def test_renewed_by_hand_whether_due_or_not(stack, name):
    stack.put(name, "s")
    put_policy(stack, name, days=30, generate=RULES)
    request = {"action": "renew", "name": name}
    for number, (_, answer) in enumerate(stack.both("rotate", request), 2):
        assert answer.code == "OK", answer
        assert answer.body["version"] == number and "secret" not in answer.body
        assert len(stack.get(name)["secret"]) == 20
    dry = stack.done("rotate", **request, dry_run=True)
    assert dry["dry_run"] and "version" not in dry
    assert len(stack.versions_of(name)) == 3
    # Sent again with its token, it is one; fifty at once are one, too.
    with ThreadPoolExecutor(50) as pool:
        again = {**request, "token": f"{name} at noon"}
        answers = list(pool.map(lambda _: stack.invoke("rotate", again), range(50)))
    assert {answer.code for answer in answers} <= {"OK", "Exists"}
    assert {answer.body["version"] for answer in answers if answer.code == "OK"} == {4}
    assert len(stack.versions_of(name)) == 4
    assert stack.verify(name) == {}


def test_runs_at_the_same_time_renew_once(stack, name):
    names = [f"{name}/{number}" for number in range(12)]
    for each in names:
        stack.put(each, "s")
        put_policy(stack, each, days=1)
        make_due(stack, each)
    with ThreadPoolExecutor(3) as pool:
        reports = list(pool.map(lambda _: rotation.run(stack, "renew"), range(3)))
    assert all(len(stack.versions_of(each)) == 2 for each in names)
    assert all(report["failed"] == 0 for report in reports)


def test_a_legacy_version_does_not_say_its_context(stack, kms, name):
    stack.rows.put_item(Item=Writer(kms, stack.key_arn).row(name, "old", context={"a": "b"}))
    put_policy(stack, name, days=1)
    make_due(stack, name)
    report = rotation.run(stack, "renew")
    assert {"name": name, "reason": "context"} in report["failures"]
    for _, answer in stack.both("rotate", {"action": "renew", "name": name}):
        assert answer.code == "Invalid" and "`context`" in answer.message
    assert len(stack.versions_of(name)) == 1
    shown = put_policy(stack, name, days=1, context={"a": "b"})
    assert shown["context"] == {"a": "b"}
    rotation.run(stack, "renew")
    assert stack.get(name, context={"a": "b"})["version"] == 2


def test_what_cannot_be_renewed_is_reported_and_stops_nobody(stack, name):
    for each in ("odd", "fine", "unread"):
        stack.put(f"{name}/{each}", "s")
        put_policy(stack, f"{name}/{each}", days=1)
        make_due(stack, f"{name}/{each}")
    sealed = stack.row(f"{name}/odd")
    stack.rows.put_item(Item={**sealed, "version": "release-2"})
    key = {"name": "/policies", "entry": f"policy#{name}/unread"}
    stack.entries.update_item(
        Key=key, UpdateExpression="SET schedule = :no", ExpressionAttributeValues={":no": "?"}
    )
    report = rotation.run(stack, "renew")
    failed = {each["name"]: each["reason"] for each in report["failures"]}
    assert (failed[f"{name}/odd"], failed[f"{name}/unread"]) == ("exists", "unreadable")
    assert stack.get(f"{name}/fine")["version"] == 2
    for each in ("odd", "unread"):
        stack.done("policy", policy="cancel", name=f"{name}/{each}")


def test_a_policy_that_leaves_one_value_renews_nothing(stack, name):
    """The right to put policies is not the right to choose a secret's value."""
    stack.put(name, "s")
    for _, answer in stack.both(
        "policy",
        {"policy": "put", "name": name, "days": 1, "generate": {"exclude_characters": ALL_BUT_A}},
    ):
        assert answer.code == "Invalid" and "64 bits" in answer.message
    # As if it was put before there was a minimum, or written into the ledger by hand.
    put_policy(stack, name, days=1)
    store(stack, name, exclude_characters=ALL_BUT_A)
    make_due(stack, name)
    assert reasons(stack)[name] == "weak"
    for dry_run in (True, False):
        request = {"action": "renew", "name": name, "dry_run": dry_run}
        for _, answer in stack.both("rotate", request):
            assert answer.code == "Invalid" and "64 bits" in answer.message
    assert stack.get(name)["secret"] == "s"
    # It can be read and replaced.
    shown = stack.done("policy", policy="get", name=name)
    assert shown["generate"]["exclude_characters"] == ALL_BUT_A
    put_policy(stack, name, days=1)
    assert name not in reasons(stack)
    assert stack.get(name)["version"] == 2


def test_a_policy_ends_with_the_secret_that_it_was_put_for(stack, name):
    """An ordinary delete, then somebody else puts the name again."""
    stack.put(name, "ours")
    put_policy(stack, name, days=1, generate=RULES)
    make_due(stack, name)
    stack.done("delete", name=name)
    assert is_suspended(stack, name)
    stack.put(name, "theirs")
    assert is_suspended(stack, name)
    assert reasons(stack)[name] == "suspended"
    for dry_run in (True, False):
        request = {"action": "renew", "name": name, "dry_run": dry_run}
        for _, answer in stack.both("rotate", request):
            assert answer.code == "Exists" and "Put the policy again" in answer.message
    assert stack.get(name)["secret"] == "theirs"
    # A restore of the old version alone does not change that.
    stack.done("restore", name=name, version=1)
    assert reasons(stack)[name] == "suspended"
    # Put again, the same policy is theirs.
    shown = put_policy(stack, name, days=1, generate=RULES)
    assert "suspended" not in shown and moment(shown["next_rotation_at"]) > now()
    assert not is_suspended(stack, name)
    make_due(stack, name)
    assert name not in reasons(stack)
    assert stack.get(name)["version"] == 3
    assert told(stack, name) == ["renew", "policy", "restore", "put", "delete", "policy", "put"]
    assert stack.verify(name) == {}


def test_a_forced_delete_removes_the_policy_of_its_own_life_only(stack, name):
    for each in ("ours", "theirs"):
        stack.put(f"{name}/{each}", "s")
        put_policy(stack, f"{name}/{each}", days=1)
        stack.done("delete", name=f"{name}/{each}")
    # As if the name was put again, with a policy, right after the last version was gone.
    store(stack, f"{name}/theirs", life=99)
    for each in ("ours", "theirs"):
        stack.done("delete", name=f"{name}/{each}", force=True)
    assert stack.invoke("policy", {"policy": "get", "name": f"{name}/ours"}).code == "NotFound"
    assert is_suspended(stack, f"{name}/theirs")
    stack.done("policy", policy="cancel", name=f"{name}/theirs")


def test_a_restore_brings_the_policy_of_its_life_back_and_no_other(stack, name):
    stack.put(name, "ours")
    due = put_policy(stack, name, days=1)["next_rotation_at"]
    stack.done("delete", name=name)
    stack.done("restore", name=name)
    assert not is_suspended(stack, name)
    assert stack.done("policy", policy="get", name=name)["next_rotation_at"] == due
    # One version of two is deleted and restored: the life is the same.
    stack.put(name, "ours, too")
    stack.done("delete", name=name, version=2)
    assert not is_suspended(stack, name)
    stack.done("restore", name=name, version=2)
    assert not is_suspended(stack, name)
    assert stack.done("rotate", action="renew", name=name)["version"] == 3
    # Deleted, put by somebody else, deleted and restored: the life is theirs.
    stack.done("delete", name=name)
    stack.put(name, "theirs")
    stack.done("delete", name=name)
    stack.done("restore", name=name)
    assert stack.get(name)["secret"] == "theirs"
    assert is_suspended(stack, name)
    assert stack.invoke("rotate", {"action": "renew", "name": name}).code == "Exists"
    assert stack.verify(name) == {}


@pytest.mark.parametrize("by", ["old client", "put"])
def test_a_policy_ends_with_an_old_clients_delete(stack, credstash, name, by):
    """It writes no event."""
    stack.put(name, "ours")
    put_policy(stack, name, days=1)
    make_due(stack, name)
    code, _, err = credstash("delete", name)
    assert code == 0, err
    assert name not in reasons(stack)
    assert is_suspended(stack, name)
    if by == "put":
        stack.put(name, "theirs")
    else:
        code, _, err = credstash("put", "-k", stack.key_arn, name, "theirs")
        assert code == 0, err
    assert reasons(stack)[name] == "suspended"
    assert is_suspended(stack, name)
    assert stack.invoke("rotate", {"action": "renew", "name": name}).code == "Exists"
    assert stack.get(name)["secret"] == "theirs"
    put_policy(stack, name, days=1, context={})
    assert not is_suspended(stack, name)
    version = stack.done("rotate", action="renew", name=name)["version"]
    # Coffer gives no number twice, whatever old clients do.
    assert version == (3 if by == "put" else 2) and len(stack.get(name)["secret"]) == 32
    assert stack.verify(name) == {}


def test_what_an_old_client_puts_in_between_ends_nothing(stack, credstash, name):
    stack.put(name, "ours")
    put_policy(stack, name, days=1, context={})
    make_due(stack, name)
    code, _, err = credstash("put", "-k", stack.key_arn, "-v", "2", name, "by hand")
    assert code == 0, err
    assert not is_suspended(stack, name)
    assert name not in reasons(stack)
    assert stack.get(name)["version"] == 3
    # The same if that version is deleted again.
    code, _, err = credstash("put", "-k", stack.key_arn, "-v", "4", name, "by hand")
    assert code == 0, err
    stack.done("delete", name=name, version=4)
    assert not is_suspended(stack, name)
    assert stack.verify(name) == {}


@pytest.mark.parametrize("version", [f"{1:019}", "1"], ids=["padded", "unpadded"])
def test_a_reseal_ends_nothing(stack, kms, name, version):
    """A row with an old digest gets another MAC, and an unpadded one another version."""
    row = Writer(kms, stack.key_arn).row(name, "s", digest="MD5")
    stack.rows.put_item(Item={**row, "version": version})
    put_policy(stack, name, days=1, context={})
    assert stack.done("reseal", action="reseal", name=name)["changed"] == 1
    [resealed] = stack.versions_of(name)
    assert resealed["version"] == f"{1:019}" and resealed["hmac"] != row["hmac"]
    assert not is_suspended(stack, name)
    assert stack.done("rotate", action="renew", name=name)["version"] == 2
    assert not is_suspended(stack, name)
    assert stack.verify(name) == {}


def test_a_policy_ends_when_its_secret_expires(stack, name):
    stack.put(name, "ours", ttl=4)
    put_policy(stack, name, days=1)
    make_due(stack, name)
    end = int(stack.row(name)["expires_at"])
    while time.time() <= end:
        time.sleep(0.1)
    # It counts as deleted, whether DynamoDB has removed it yet or not.
    assert name not in reasons(stack)
    assert len(stack.versions_of(name)) <= 1
    assert is_suspended(stack, name)
    by_hand = stack.invoke("rotate", {"action": "renew", "name": name})
    assert by_hand.code in ("Exists", "NotFound")
    answer = stack.invoke("policy", {"policy": "put", "name": name, "days": 1})
    assert answer.code in ("Expired", "NotFound")
    stack.put(name, "theirs")
    assert reasons(stack)[name] == "suspended"
    assert stack.get(name)["secret"] == "theirs"
    stack.done("policy", policy="cancel", name=name)
    assert stack.verify(name) == {}


def test_a_policy_from_before_there_were_lives_goes_on(stack, name):
    """After an update in place, neither events nor policies have the attributes."""
    for each in ("kept", "anew"):
        stack.put(f"{name}/{each}", "s")
        put_policy(stack, f"{name}/{each}", days=1)
    # One of the two was deleted and put again before the update.
    for each, more in (("kept", {}), ("anew", {"state": "anew"})):
        for entry in stack.entries_of(f"{name}/{each}"):
            old = {key: entry[key] for key in entry if key not in ("life", "newest")}
            stack.entries.put_item(Item={**old, **more})
        stack.entries.update_item(
            Key={"name": "/policies", "entry": f"policy#{name}/{each}"},
            UpdateExpression="REMOVE life",
        )
        make_due(stack, f"{name}/{each}")
    failed = reasons(stack)
    assert f"{name}/kept" not in failed and failed[f"{name}/anew"] == "suspended"
    assert stack.get(f"{name}/kept")["version"] == 2
    assert stack.get(f"{name}/anew")["version"] == 1
    # A delete and a restore do not make it the life of the policy.
    stack.done("delete", name=f"{name}/anew")
    stack.done("restore", name=f"{name}/anew")
    assert is_suspended(stack, f"{name}/anew")
    assert reasons(stack)[f"{name}/anew"] == "suspended"
    put_policy(stack, f"{name}/anew", days=1)
    assert stack.done("rotate", action="renew", name=f"{name}/anew")["version"] == 2


def test_puts_at_the_same_time_end_no_life(stack, name):
    stack.put(f"{name}/policy", "first")
    put_policy(stack, f"{name}/policy", days=1)

    def put(number):
        each = f"{name}/{('policy', 'new')[number % 2]}"
        return stack.invoke("put", {"name": each, "secret": f"writer {number}"}).code

    with ThreadPoolExecutor(50) as pool:
        assert set(pool.map(put, range(100))) == {"OK"}
    assert not is_suspended(stack, f"{name}/policy")
    for each in ("policy", "new"):
        (head,) = stack.entries_of(f"{name}/{each}", "head")
        assert "state" not in head and head["life"] == 1
    assert stack.done("rotate", action="renew", name=f"{name}/policy")["version"] == 52


def test_a_version_of_an_earlier_life_comes_back_without_the_policy_of_the_later_one(stack, name):
    stack.put(name, "first owner")
    stack.done("delete", name=name)
    stack.put(name, "second owner")
    put_policy(stack, name, days=1)
    make_due(stack, name)
    stack.done("delete", name=name)
    assert stack.done("restore", name=name, version=1)["versions"] == [1]
    assert is_suspended(stack, name)
    assert reasons(stack)[name] == "suspended"
    assert stack.get(name)["secret"] == "first owner"
    # And that of the later life comes back with it.
    stack.done("delete", name=name)
    assert stack.done("restore", name=name, version=2)["versions"] == [2]
    assert not is_suspended(stack, name)
    assert name not in reasons(stack)
    assert stack.get(name)["version"] == 3
    assert stack.verify(name) == {}


def test_a_delete_within_a_life_is_undone_without_a_version(stack, name):
    """Also where an expiry, which leaves no event, has ended the life before."""
    stack.put(name, "expired", ttl=1)
    while stack.invoke("get", {"name": name}).code != "Expired":
        pass
    stack.put(name, "second")
    stack.put(name, "third")
    stack.done("delete", name=name, version=2)
    assert stack.done("restore", name=name)["versions"] == [2]


def test_a_renewal_sent_again_is_answered_the_same_whatever_changed_since(stack, name):
    stack.put(name, "s", comment="before")
    put_policy(stack, name, days=1)
    again = {"action": "renew", "name": name, "token": f"{name} once"}
    first = stack.done("rotate", **again)
    stack.put(name, "s", comment="after")
    put_policy(stack, name, days=2, generate=RULES)
    assert stack.done("rotate", **again) == first
    stack.done("policy", policy="cancel", name=name)
    stack.done("delete", name=name)
    assert stack.done("rotate", **again) == first


def test_policies_of_any_size_do_not_stop_the_others(stack, name):
    """A schedule of 60 KB expands to 34 MB."""
    large = "cron(" + "*," * 30_000 + "* 3 * * ? *)"
    changes = {
        **{f"schedule {number}": {"schedule": large} for number in range(5)},
        "zone": {"schedule": "cron(0 3 * * ? *)", "timezone": "U" * 60_000},
        "rules": {"exclude_characters": "0" * 60_000},
        "context": {"context": {"k": "v" * 60_000}},
        "template": {"template": json.dumps({"a": "x" * 60_000}), "template_key": "password"},
    }
    for each in ("a fine one", *changes, "z fine one"):
        stack.put(f"{name}/{each}", "s")
        put_policy(stack, f"{name}/{each}", days=1)
        store(stack, f"{name}/{each}", due=int(time.time()) - 60, **changes.get(each, {}))
    failed = reasons(stack)
    for each in changes:
        assert failed[f"{name}/{each}"] == "unreadable"
        answer = stack.invoke("policy", {"policy": "get", "name": f"{name}/{each}"})
        assert answer.code == "Malformed"
        stack.done("policy", policy="cancel", name=f"{name}/{each}")
    for each in ("a fine one", "z fine one"):
        assert stack.get(f"{name}/{each}")["version"] == 2


def test_a_json_secret_is_renewed_by_a_template_and_by_nothing_else(stack, name):
    template = '{"user": "admin", "port": 5432, "hosts": ["a", "b"]}'
    first = '{"user":"admin","password":"old"}'
    stack.put(name, first, context={"app": "web"})
    put_policy(stack, name, days=1)
    make_due(stack, name)
    assert reasons(stack)[name] == "json"
    for _, answer in stack.both("rotate", {"action": "renew", "name": name}):
        assert answer.code == "Invalid" and "`generate.template`" in answer.message
    assert stack.get(name, context={"app": "web"})["secret"] == first
    rules = {**RULES, "template": template, "key": "password"}
    for _, answer in stack.both(
        "policy", {"policy": "put", "name": name, "days": 1, "generate": rules}
    ):
        assert answer.code == "OK" and answer.body["generate"] == rules
    assert name not in reasons(stack)
    renewed = stack.get(name, context={"app": "web"})
    value = json.loads(renewed["secret"])
    assert renewed["version"] == 2
    assert list(value) == ["user", "port", "hosts", "password"]
    assert len(value["password"]) == 20 and value["password"].isalnum()
    del value["password"]
    assert value == json.loads(template)
    # The next one follows a value that a renewal made.
    assert stack.done("rotate", action="renew", name=name)["version"] == 3
    # And nobody turns a value that is no JSON into a document of their own.
    stack.put(name, "a password", context={"app": "web"})
    assert stack.invoke("rotate", {"action": "renew", "name": name}).code == "Invalid"
    assert stack.get(name, context={"app": "web"})["secret"] == "a password"
    assert stack.verify(name) == {}


def test_a_template_is_for_put_too(stack, name):
    # Characters that JSON escapes, and a field that the template already has.
    only = PRINTABLE.replace('"', "").replace("\\", "")
    rules = {"length": 40, "exclude_characters": only, "key": "b"}
    request = {"generate": {**rules, "template": '{"a": "1", "b": "old", "c": null}'}}
    for _, answer in stack.both("put", {"name": name, **request, "token": name}):
        assert answer.code == "OK" and "secret" not in answer.body
    assert len(stack.versions_of(name)) == 1
    value = json.loads(stack.get(name)["secret"])
    assert list(value) == ["a", "b", "c"] and set(value["b"]) <= {'"', "\\"}
    assert len(value["b"]) == 40 and (value["a"], value["c"]) == ("1", None)
    # With another template it is another request.
    other = {"generate": {**rules, "template": "{}"}}
    assert stack.invoke("put", {"name": name, **other, "token": name}).code == "Exists"


def test_an_old_client_reads_what_was_renewed(stack, credstash, nodecredstash, name):
    stack.put(name, "s", context={"app": "web"})
    put_policy(stack, name, days=1)
    stack.done("rotate", action="renew", name=name)
    secret = stack.get(name, context={"app": "web"})["secret"]
    assert credstash("get", "-n", name, "app=web")[1] == secret
    assert nodecredstash("getSecret", name=name, context={"app": "web"}) == {"ok": secret}


def test_a_renewal_costs_what_the_readme_says(stack, faults, name):
    def counted(due):
        for each in due:
            make_due(stack, each)
        faults.calls()
        assert rotation.run(stack, "renew")["changed"] == len(due)
        return faults.calls()

    names = [f"{name}/{number}" for number in range(20)]
    for each in names:
        stack.put(each, "s")
        put_policy(stack, each, days=1)
    nothing, all_ = counted([]), counted(names)
    more = {call: all_[call] - nothing.get(call, 0) for call in all_}
    assert more["kms:GenerateDataKey"] == 20
    # The newest version and the end of the ledger, once to plan and once to write.
    assert more["dynamodb:Query"] == 4 * 20
    # And one for each page, with the marks of what it is to change.
    assert 20 < more["dynamodb:TransactWriteItems"] <= 20 + 3


def test_a_start_that_is_delivered_twice_works_once(stack, iam, name):
    """Two schedules of the same time, as EventBridge Scheduler may deliver one twice."""
    stack.put(name, "s")
    put_policy(stack, name, days=1)
    make_due(stack, name)
    role = f"rotation-scheduler-{os.getpid()}"
    trust = allow("sts:AssumeRole", None)
    del trust["Statement"][0]["Resource"]
    trust["Statement"][0]["Principal"] = {"Service": "scheduler.amazonaws.com"}
    arn = iam.create_role(RoleName=role, AssumeRolePolicyDocument=json.dumps(trust))["Role"]["Arn"]
    iam.put_role_policy(
        RoleName=role,
        PolicyName="start",
        PolicyDocument=json.dumps(allow("states:StartExecution", stack.machine)),
    )
    scheduler, machines = client("scheduler"), client("stepfunctions")
    known = {each["executionArn"] for each in executions(machines, stack)}
    at = now() + timedelta(seconds=6)
    schedules = [f"rotate-twice-{os.getpid()}-{number}" for number in range(2)]
    for schedule in schedules:
        scheduler.create_schedule(
            Name=schedule,
            ScheduleExpression=f"at({at:%Y-%m-%dT%H:%M:%S})",
            FlexibleTimeWindow={"Mode": "OFF"},
            Target={
                "Arn": stack.machine,
                "RoleArn": arn,
                "Input": '{"action": "renew", "token": "<aws.scheduler.scheduled-time>"}',
            },
        )
    deadline = time.monotonic() + 120
    while True:
        new = [each for each in executions(machines, stack) if each["executionArn"] not in known]
        if len(new) == 2 and all(each["status"] != "RUNNING" for each in new):
            break
        assert time.monotonic() < deadline, "the schedules did not fire"
        time.sleep(0.5)
    assert {each["status"] for each in new} == {"SUCCEEDED"}
    outputs = [
        json.loads(machines.describe_execution(executionArn=each["executionArn"])["output"])
        for each in new
    ]
    assert sorted("known" in output for output in outputs) == [False, True]
    assert len(stack.versions_of(name)) == 2 and told(stack, name).count("renew") == 1
    for schedule in schedules:
        scheduler.delete_schedule(Name=schedule)


def executions(machines, stack):
    return machines.list_executions(stateMachineArn=stack.machine)["executions"]


def test_the_stacks_own_schedule_renews(kms):
    """Deployed to look each minute. The schedule is the template's, with its token."""
    rotating = rotation.Rotating("renew")
    key = kms.create_key()["KeyMetadata"]["Arn"]
    stack = rotating.deploy(key, RenewSchedule="rate(1 minute)")
    stack.put("scheduled", "s")
    put_policy(stack, "scheduled", days=1)
    make_due(stack, "scheduled")
    deadline = time.monotonic() + 180
    while len(stack.versions_of("scheduled")) < 2:
        assert time.monotonic() < deadline, "the schedule did not fire"
        time.sleep(1)
    assert told(stack, "scheduled") == ["renew", "policy", "put"]
    assert stack.history("scheduled")[0]["who"].startswith(f"arn:aws:states:{REGION}:{ACCOUNT}:")
    # A token that were the same each time would let the first start alone count.
    key_of_run = {"name": "/rotation", "entry": "run#renew"}
    token = stack.entries.get_item(Key=key_of_run, ConsistentRead=True)["Item"]["token"]
    assert abs(moment(token) - now()) < timedelta(minutes=10)
    rotating.deploy(key)


def test_a_run_says_how_it_stands_by_both_doors(stack, name):
    rotation.run(stack, "renew")
    for _, answer in stack.both("list", {"list": "report", "action": "renew"}):
        report = answer.body
        assert report["state"] == "done" and report["seen"] >= report["changed"]
        assert moment(report["started_at"]) <= moment(report["ended_at"]) <= now()
    assert stack.invoke("list", {"list": "report", "action": "pl4nted"}).code == "Invalid"
    assert stack.invoke("list", {"list": "report"}).code == "Invalid"
    # A cursor of another listing, or of nobody's making.
    forged = base64.urlsafe_b64encode(b'{"name":"renew","version":"event#1"}').decode().rstrip("=")
    answer = stack.invoke("list", {"list": "report", "action": "renew", "next": forged})
    assert answer.code == "Invalid"
    stack.put(name, "s")
    rotated = stack.invoke("rotate", {"action": "rewrap", "name": name, "next": forged})
    assert (rotated.code, rotated.body["seen"]) == ("OK", 1)


@pytest.mark.parametrize(
    "request_",
    [
        {"action": "pl4nted"},
        {"action": None},
        {"action": ["rewrap"]},
        {"action": "rewrap", "contexts": {"a": "b"}},
        {"action": "rewrap", "contexts": [{"name": "a", "prefix": "b"}]},
        {"action": "rewrap", "contexts": [{"pl4nted": 1}]},
        {"action": "reseal", "dialects": [{"dialect": "pl4nted"}]},
        {"action": "reseal", "dialects": [{}]},
        {"action": "renew", "contexts": []},
        {"action": "renew", "dry_run": "pl4nted"},
        {"action": "renew", "token": ""},
        {"action": "rewrap", "step": "end", "execution": "pl4nted"},
        {"action": "rewrap", "next": "pl4nted"},
        {"action": "rewrap", "pl4nted": 1},
        {},
    ],
    ids=str,
)
def test_a_rotation_that_is_none_is_refused(stack, name, request_):
    stack.put(name, "s")
    before = stack.versions_of(name)
    for origin, answer in stack.both("rotate", {"name": name, **request_}):
        assert answer.code == "Invalid", (origin, answer)
        assert "pl4nted" not in json.dumps(answer.body) + answer.log
    assert stack.versions_of(name) == before
    assert stack.invoke("rotate", {"action": "rewrap"}).code == "Invalid"


@pytest.mark.parametrize(
    "input_",
    [{}, {"action": "pl4nted"}, {"action": "rewrap", "pl4nted": 1}, {"action": "rewrap", "dry_run": 1}],
    ids=str,
)
def test_a_run_that_is_none_fails_at_once(stack, input_):
    machines = client("stepfunctions")
    arn = machines.start_execution(stateMachineArn=stack.machine, input=json.dumps(input_))
    told = rotation.ended(arn["executionArn"], 20)
    assert (told["status"], told["error"]) == ("FAILED", "Invalid")
    assert "pl4nted" not in told["cause"]


@pytest.mark.parametrize("action", ["renew", "rewrap"])
def test_what_kms_denies_under_one_context_is_told_and_does_not_stop_the_rest(kms, name, action):
    """By the policy of an adopted key. Whoever watches the executions hears of it."""
    key = kms.create_key()["KeyMetadata"]["Arn"]
    # The start of the order in which policies are renewed, and its end.
    denied, fine = f"a/{name}", f"z/{name}"
    rotating = rotation.Rotating(f"denied-{action}")
    stack = rotating.deploy(key)
    for each, context in ((denied, {"team": "theirs"}), (fine, {"team": "ours"})):
        stack.put(each, "s", context=context)
        put_policy(stack, each, days=1)
        make_due(stack, each)
    # A legacy row may have been put under either.
    hints = {}
    if action == "rewrap":
        stack.rows.put_item(Item=Writer(kms, key).row("legacy", "s", context={"team": "ours"}))
        hints["contexts"] = [{"context": {"team": team}} for team in ("theirs", "ours")]
    open_policy = kms.get_key_policy(KeyId=key, PolicyName="default")["Policy"]
    statement = {
        "Effect": "Deny",
        "Principal": "*",
        "Action": ["kms:GenerateDataKey", "kms:ReEncryptFrom"],
        "Resource": "*",
        "Condition": {"StringEquals": {"kms:EncryptionContext:team": "theirs"}},
    }
    document = json.loads(open_policy)
    document["Statement"].append(statement)
    kms.put_key_policy(KeyId=key, PolicyName="default", Policy=json.dumps(document))
    kms.rotate_key_on_demand(KeyId=key)

    told = rotation.ended(rotation.start(stack, action, **hints))
    assert (told["status"], told["error"]) == ("FAILED", "Denied")
    report = rotation.report(stack, action)
    assert (report["changed"], report["reasons"]) == (2 if hints else 1, {"denied": 1})
    [failure] = report["failures"]
    assert (failure["name"], failure["reason"]) == (denied, "denied")
    assert len(stack.versions_of(fine)) == (2 if action == "renew" else 1)
    # For a name alone it is an error.
    assert stack.invoke("rotate", {"action": action, "name": denied}).code == "Unavailable"

    kms.put_key_policy(KeyId=key, PolicyName="default", Policy=open_policy)
    report = rotation.run(stack, action, **hints)
    assert (report["changed"], report["failed"]) == (1, 0)
