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

RULES = {"length": 20, "exclude_punctuation": True, "require_each_included_type": True}


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
        {"days": 1, "generate": {"length": 0}},
        {"days": 1, "generate": {"symbols": True}},
        {"days": 1, "context": {"": "x"}},
        {"days": 1, "pl4nted": 1},
    ],
    ids=str,
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
    assert more["dynamodb:Query"] == 3 * 20
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
