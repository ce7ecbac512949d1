"""Runs: how they are started, what they refuse, and what they report."""

import base64
import json
import os
import time
from datetime import timedelta
from typing import Any

import pytest

import rotation
from conftest import ACCOUNT, REGION, Stack, allow, client
from legacy import Writer
from policies import make_due, now, operations, put_policy, timestamp


def test_a_start_delivered_twice_renews_once(stack: Stack, iam: Any, name: str) -> None:
    """Uses two schedules with one time, because EventBridge Scheduler may deliver a start twice."""
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
    earlier = {each["executionArn"] for each in executions(machines, stack)}
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
        new = [each for each in executions(machines, stack) if each["executionArn"] not in earlier]
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
    assert len(stack.versions_of(name)) == 2 and operations(stack, name).count("renew") == 1
    for schedule in schedules:
        scheduler.delete_schedule(Name=schedule)


def executions(machines: Any, stack: Stack) -> list[Any]:
    """Returns the executions of the stack's state machine."""
    return machines.list_executions(stateMachineArn=stack.machine)["executions"]


def test_the_schedule_of_the_stack_starts_renewals(kms: Any) -> None:
    """Deploys a stack that starts a renewal every minute, by the schedule of the template."""
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
    assert operations(stack, "scheduled") == ["renew", "policy", "put"]
    assert stack.history("scheduled")[0]["who"].startswith(f"arn:aws:states:{REGION}:{ACCOUNT}:")
    # The token is the scheduled time. A constant token would allow only one run.
    key_of_run = {"name": "/rotation", "entry": "run#renew"}
    token = stack.entries.get_item(Key=key_of_run, ConsistentRead=True)["Item"]["token"]
    assert abs(timestamp(token) - now()) < timedelta(minutes=10)
    rotating.deploy(key)


def test_the_report_of_a_run_is_available_by_http_and_by_direct_invoke(
    stack: Stack, name: str
) -> None:
    rotation.run(stack, "renew")
    for _, response in stack.both("list", {"list": "report", "action": "renew"}):
        report = response.body
        assert report["state"] == "done" and report["seen"] >= report["changed"]
        assert timestamp(report["started_at"]) <= timestamp(report["ended_at"]) <= now()
    assert stack.invoke("list", {"list": "report", "action": "pl4nted"}).code == "Invalid"
    assert stack.invoke("list", {"list": "report"}).code == "Invalid"
    # A cursor of another list, or a forged one.
    forged = base64.urlsafe_b64encode(b'{"name":"renew","version":"event#1"}').decode().rstrip("=")
    response = stack.invoke("list", {"list": "report", "action": "renew", "next": forged})
    assert response.code == "Invalid"
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
def test_an_invalid_rotation_request_is_refused(
    stack: Stack, name: str, request_: dict[str, Any]
) -> None:
    stack.put(name, "s")
    before = stack.versions_of(name)
    for origin, response in stack.both("rotate", {"name": name, **request_}):
        assert response.code == "Invalid", (origin, response)
        assert "pl4nted" not in json.dumps(response.body) + response.log
    assert stack.versions_of(name) == before
    assert stack.invoke("rotate", {"action": "rewrap"}).code == "Invalid"


@pytest.mark.parametrize(
    "input_",
    [
        {},
        {"action": "pl4nted"},
        {"action": "rewrap", "pl4nted": 1},
        {"action": "rewrap", "dry_run": 1},
    ],
    ids=str,
)
def test_an_execution_with_invalid_input_fails_immediately(
    stack: Stack, input_: dict[str, Any]
) -> None:
    machines = client("stepfunctions")
    execution = machines.start_execution(stateMachineArn=stack.machine, input=json.dumps(input_))
    result = rotation.ended(execution["executionArn"], 20)
    assert (result["status"], result["error"]) == ("FAILED", "Invalid")
    assert "pl4nted" not in result["cause"]


@pytest.mark.parametrize("action", ["renew", "rewrap"])
def test_a_kms_denial_for_one_context_is_reported_and_does_not_block_others(
    kms: Any, name: str, action: str
) -> None:
    """The policy of an adopted key denies one context. The execution fails."""
    key = kms.create_key()["KeyMetadata"]["Arn"]
    # The first and the last name in the order of a run.
    denied, fine = f"a/{name}", f"z/{name}"
    rotating = rotation.Rotating(f"denied-{action}")
    stack = rotating.deploy(key)
    for each, context in ((denied, {"team": "theirs"}), (fine, {"team": "ours"})):
        stack.put(each, "s", context=context)
        put_policy(stack, each, days=1)
        make_due(stack, each)
    # A legacy row does not state its context: the hints give two possible ones.
    hints: dict[str, Any] = {}
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

    result = rotation.ended(rotation.start(stack, action, **hints))
    assert (result["status"], result["error"]) == ("FAILED", "Denied")
    report = rotation.report(stack, action)
    assert (report["changed"], report["reasons"]) == (2 if hints else 1, {"denied": 1})
    [failure] = report["failures"]
    assert (failure["name"], failure["reason"]) == (denied, "denied")
    assert len(stack.versions_of(fine)) == (2 if action == "renew" else 1)
    # A request for that name alone fails.
    assert stack.invoke("rotate", {"action": action, "name": denied}).code == "Unavailable"

    kms.put_key_policy(KeyId=key, PolicyName="default", Policy=open_policy)
    report = rotation.run(stack, action, **hints)
    assert (report["changed"], report["failed"]) == (1, 0)
