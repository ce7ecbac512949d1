"""Due secrets are renewed: by a run or by hand, once each, and never a deleted one."""

import json
import string
from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta
from typing import Any

import rotation
from conftest import CommandLine, Faults, NodeClient, Stack
from legacy import Writer
from policies import (
    PRINTABLE,
    RULES,
    is_suspended,
    make_due,
    now,
    operations,
    put_policy,
    reasons,
    timestamp,
)


def test_a_due_secret_is_renewed_once_however_many_rotations_were_missed(
    stack: Stack, name: str
) -> None:
    stack.put(name, "first", comment="why", context={"app": "web"})
    put_policy(stack, name, schedule="rate(2 hours)", generate=RULES)
    # Ten rotations were missed.
    make_due(stack, name, ago=20 * 3600)
    report = rotation.run(stack, "renew", dry_run=True)
    assert report["changed"] == 1 and report["dry_run"]
    assert len(stack.versions_of(name)) == 1
    execution = rotation.start(stack, "renew")
    result = rotation.ended(execution)
    assert json.loads(result["output"])["changed"] == 1
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
    interval = timestamp(policy["next_rotation_at"]) - timestamp(policy["last_rotated_at"])
    assert interval == timedelta(hours=2) and timestamp(policy["last_rotated_at"]) <= now()
    events = stack.history(name)
    assert [event["operation"] for event in events] == ["renew", "policy", "put"]
    assert (events[0]["version"], events[0]["who"]) == (2, execution)
    assert stack.verify(name) == {}


def test_a_secret_with_a_cancelled_policy_is_not_renewed(stack: Stack, name: str) -> None:
    stack.put(name, "s")
    put_policy(stack, name, days=1)
    make_due(stack, name)
    stack.done("policy", policy="cancel", name=name)
    rotation.run(stack, "renew")
    assert len(stack.versions_of(name)) == 1
    assert stack.invoke("rotate", {"action": "renew", "name": name}).code == "NotFound"


def test_a_secret_deleted_while_due_is_renewed_after_it_is_restored(
    stack: Stack, name: str
) -> None:
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
    assert operations(stack, name) == ["renew", "restore", "delete", "policy", "put"]
    assert not is_suspended(stack, name)
    # A forced delete also removes the policy, so a later put starts without one.
    stack.done("delete", name=name, force=True)
    assert stack.invoke("policy", {"policy": "get", "name": name}).code == "NotFound"
    stack.put(name, "again")
    rotation.run(stack, "renew")
    assert stack.get(name)["secret"] == "again"
    assert stack.verify(name) == {}


def test_a_secret_can_be_renewed_by_hand_before_it_is_due(stack: Stack, name: str) -> None:
    stack.put(name, "s")
    put_policy(stack, name, days=30, generate=RULES)
    request = {"action": "renew", "name": name}
    for number, (_, response) in enumerate(stack.both("rotate", request), 2):
        assert response.code == "OK", response
        assert response.body["version"] == number and "secret" not in response.body
        assert len(stack.get(name)["secret"]) == 20
    dry = stack.done("rotate", **request, dry_run=True)
    assert dry["dry_run"] and "version" not in dry
    assert len(stack.versions_of(name)) == 3
    # Fifty concurrent requests with one token create one version.
    with ThreadPoolExecutor(50) as pool:
        repeated = {**request, "token": f"{name} at noon"}
        responses = list(pool.map(lambda _: stack.invoke("rotate", repeated), range(50)))
    assert {response.code for response in responses} <= {"OK", "Exists"}
    assert {response.body["version"] for response in responses if response.code == "OK"} == {4}
    assert len(stack.versions_of(name)) == 4
    assert stack.verify(name) == {}


def test_concurrent_runs_renew_each_secret_once(stack: Stack, name: str) -> None:
    names = [f"{name}/{number}" for number in range(12)]
    for each in names:
        stack.put(each, "s")
        put_policy(stack, each, days=1)
        make_due(stack, each)
    with ThreadPoolExecutor(3) as pool:
        reports = list(pool.map(lambda _: rotation.run(stack, "renew"), range(3)))
    assert all(len(stack.versions_of(each)) == 2 for each in names)
    assert all(report["failed"] == 0 for report in reports)


def test_renewing_a_legacy_version_requires_a_context_in_its_policy(
    stack: Stack, kms: Any, name: str
) -> None:
    stack.rows.put_item(Item=Writer(kms, stack.key_arn).row(name, "old", context={"a": "b"}))
    put_policy(stack, name, days=1)
    make_due(stack, name)
    report = rotation.run(stack, "renew")
    assert {"name": name, "reason": "context"} in report["failures"]
    for _, response in stack.both("rotate", {"action": "renew", "name": name}):
        assert response.code == "Invalid" and "`context`" in response.message
    assert len(stack.versions_of(name)) == 1
    shown = put_policy(stack, name, days=1, context={"a": "b"})
    assert shown["context"] == {"a": "b"}
    rotation.run(stack, "renew")
    assert stack.get(name, context={"a": "b"})["version"] == 2


def test_a_failed_renewal_is_reported_and_does_not_block_others(stack: Stack, name: str) -> None:
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


def test_a_repeated_renewal_returns_the_same_response_after_later_changes(
    stack: Stack, name: str
) -> None:
    stack.put(name, "s", comment="before")
    put_policy(stack, name, days=1)
    request = {"action": "renew", "name": name, "token": f"{name} once"}
    first = stack.done("rotate", **request)
    stack.put(name, "s", comment="after")
    put_policy(stack, name, days=2, generate=RULES)
    assert stack.done("rotate", **request) == first
    stack.done("policy", policy="cancel", name=name)
    stack.done("delete", name=name)
    assert stack.done("rotate", **request) == first


def test_a_json_secret_is_renewed_only_with_a_template(stack: Stack, name: str) -> None:
    template = '{"user": "admin", "port": 5432, "hosts": ["a", "b"]}'
    first = '{"user":"admin","password":"old"}'
    stack.put(name, first, context={"app": "web"})
    put_policy(stack, name, days=1)
    make_due(stack, name)
    assert reasons(stack)[name] == "json"
    for _, response in stack.both("rotate", {"action": "renew", "name": name}):
        assert response.code == "Invalid" and "`generate.template`" in response.message
    assert stack.get(name, context={"app": "web"})["secret"] == first
    rules = {**RULES, "template": template, "key": "password"}
    for _, response in stack.both(
        "policy", {"policy": "put", "name": name, "days": 1, "generate": rules}
    ):
        assert response.code == "OK" and response.body["generate"] == rules
    assert name not in reasons(stack)
    renewed = stack.get(name, context={"app": "web"})
    value = json.loads(renewed["secret"])
    assert renewed["version"] == 2
    assert list(value) == ["user", "port", "hosts", "password"]
    assert len(value["password"]) == 20 and value["password"].isalnum()
    del value["password"]
    assert value == json.loads(template)
    # A renewed value can be renewed again.
    assert stack.done("rotate", action="renew", name=name)["version"] == 3
    # A template does not turn a value that is not JSON into a document.
    stack.put(name, "a password", context={"app": "web"})
    assert stack.invoke("rotate", {"action": "renew", "name": name}).code == "Invalid"
    assert stack.get(name, context={"app": "web"})["secret"] == "a password"
    assert stack.verify(name) == {}


def test_put_can_generate_a_value_from_a_template(stack: Stack, name: str) -> None:
    # Covers characters that JSON escapes, and a field that the template already has.
    excluded = PRINTABLE.replace('"', "").replace("\\", "")
    rules = {"length": 40, "exclude_characters": excluded, "key": "b"}
    request = {"generate": {**rules, "template": '{"a": "1", "b": "old", "c": null}'}}
    for _, response in stack.both("put", {"name": name, **request, "token": name}):
        assert response.code == "OK" and "secret" not in response.body
    assert len(stack.versions_of(name)) == 1
    value = json.loads(stack.get(name)["secret"])
    assert list(value) == ["a", "b", "c"] and set(value["b"]) <= {'"', "\\"}
    assert len(value["b"]) == 40 and (value["a"], value["c"]) == ("1", None)
    # A different template makes it a different request.
    other = {"generate": {**rules, "template": "{}"}}
    assert stack.invoke("put", {"name": name, **other, "token": name}).code == "Exists"


def test_old_clients_can_read_a_renewed_secret(
    stack: Stack, credstash: CommandLine, nodecredstash: NodeClient, name: str
) -> None:
    stack.put(name, "s", context={"app": "web"})
    put_policy(stack, name, days=1)
    stack.done("rotate", action="renew", name=name)
    secret = stack.get(name, context={"app": "web"})["secret"]
    assert credstash("get", "-n", name, "app=web")[1] == secret
    assert nodecredstash("getSecret", name=name, context={"app": "web"}) == {"ok": secret}


def test_a_renewal_makes_the_documented_number_of_calls(
    stack: Stack, faults: Faults, name: str
) -> None:
    def calls_of_run(due: list[str]) -> dict[str, int]:
        for each in due:
            make_due(stack, each)
        faults.calls()
        assert rotation.run(stack, "renew")["changed"] == len(due)
        return faults.calls()

    names = [f"{name}/{number}" for number in range(20)]
    for each in names:
        stack.put(each, "s")
        put_policy(stack, each, days=1)
    idle, busy = calls_of_run([]), calls_of_run(names)
    calls = {call: busy[call] - idle.get(call, 0) for call in busy}
    assert calls["kms:GenerateDataKey"] == 20
    # The newest version and the chain head, once to plan and once to write.
    assert calls["dynamodb:Query"] == 4 * 20
    # One write for each secret, and one for each page with the marks of its changes.
    assert 20 < calls["dynamodb:TransactWriteItems"] <= 20 + 3
