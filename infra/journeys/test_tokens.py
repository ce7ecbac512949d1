"""A put with a token is done once, however often it is sent."""

import hashlib
import json
import os
import time
from concurrent.futures import ThreadPoolExecutor
from datetime import datetime, timedelta, timezone

import pytest
from boto3.dynamodb.types import Binary
from conftest import ACCOUNT, REGION, allow, client

CALLERS = 50


def test_the_same_put_sent_again_makes_one_version_and_one_answer(stack, name):
    request = {"name": name, "secret": "s", "token": f"{name} 1", "comment": "c", "ttl": 3600}
    first = stack.invoke("put", request)
    assert first.code == "OK"
    for _, again in stack.both("put", request):
        assert again.body == first.body
    # The value is no part of what is compared: nothing is kept that could tell it.
    assert stack.invoke("put", {**request, "secret": "other"}).body == first.body
    assert len(stack.versions_of(name)) == 1
    assert len(stack.history(name)) == 1
    assert stack.put(name, "s", token=f"{name} 2")["version"] == 2
    # Later versions, or the end of this one, change nothing of the answer.
    assert stack.invoke("put", request).body == first.body
    stack.done("delete", name=name)
    assert stack.invoke("put", request).body == first.body


@pytest.mark.parametrize("door", ["invoke", "by_http"])
def test_fifty_at_once_make_one_version(stack, name, door):
    request = {"name": name, "generate": {}, "token": name}
    with ThreadPoolExecutor(CALLERS) as pool:
        answers = list(pool.map(lambda _: getattr(stack, door)("put", request), range(CALLERS)))
    assert {answer.code for answer in answers} == {"OK"}
    assert len({json.dumps(answer.body) for answer in answers}) == 1
    assert len(stack.versions_of(name)) == 1
    assert len(stack.history(name)) == 1


def test_fifty_at_once_of_an_explicit_version(stack, name):
    request = {"name": name, "secret": "s", "version": 7, "token": name}
    with ThreadPoolExecutor(CALLERS) as pool:
        answers = list(pool.map(lambda _: stack.invoke("put", request), range(CALLERS)))
    assert {answer.code for answer in answers} == {"OK"}
    assert {answer.body["version"] for answer in answers} == {7}


@pytest.mark.parametrize(
    "change",
    [
        {"comment": "another"},
        {"context": {"a": "b"}},
        {"ttl": 61},
        {"version": 9},
        {"generate": {"length": 12}, "secret": None},
    ],
    ids=str,
)
def test_the_token_of_another_request_is_refused(stack, name, change):
    request = {"name": name, "secret": "s", "token": name, "ttl": 60}
    stack.put(**request)
    other = {field: value for field, value in {**request, **change}.items() if value is not None}
    for origin, answer in stack.both("put", other):
        assert answer.code == "Exists"
        assert answer.status == (409 if origin == "http" else None)
        assert "token" in answer.message
    assert len(stack.versions_of(name)) == 1


@pytest.mark.parametrize("token", ["", "t" * 257, "ü" * 129, 5, None, ["t"]], ids=str)
def test_a_token_that_is_none_is_refused(stack, name, token):
    request = {"name": name, "secret": "s", "token": token}
    assert stack.invoke("put", request).code == "Invalid"
    assert stack.versions_of(name) == []


def test_a_token_may_be_any_text(stack, name):
    for token in ("ключ\n🔑", "t" * 256, "<aws.scheduler.scheduled-time>", " \0"):
        token = (name + token)[:256]
        first = stack.put(name, "s", token=token)
        assert stack.put(name, "s", token=token) == first


def test_a_token_is_answered_when_its_expiry_has_passed(stack, name):
    end = datetime.now(timezone.utc) + timedelta(seconds=5)
    request = {"name": name, "secret": "s", "token": name, "expires_at": end.isoformat()}
    first = stack.invoke("put", request)
    while datetime.now(timezone.utc) <= end + timedelta(seconds=1):
        assert stack.invoke("put", request).body == first.body
    assert stack.invoke("put", {**request, "token": f"{name} 2"}).code == "Invalid"


def test_a_token_lasts_a_day_and_is_kept_as_a_hash(stack, name):
    token = f"{name} token"
    stack.put(name, "s", token=token)
    rows = stack.entries.scan(ConsistentRead=True)["Items"]
    mine = [row for row in rows if row["entry"] == "token" and name in row["answer"]]
    assert len(mine) == 1 and token not in str(mine)
    assert int(mine[0]["ttl"]) == pytest.approx(time.time() + 24 * 3600, abs=60)
    # DynamoDB removes it some time later: what has ended is as if it were not there.
    stack.entries.put_item(Item={**mine[0], "ttl": 1})
    assert stack.put(name, "s", token=token)["version"] == 2
    assert stack.put(name, "s", token=token)["version"] == 2


def test_a_bundle_with_a_token(stack, name):
    request = {"prefix": name, "token": name, "secrets": {f"{name}/{n}": "s" for n in range(49)}}
    first = stack.invoke("put", request)
    assert first.code == "OK"
    for _, again in stack.both("put", request):
        assert again.body == first.body
    # A map has no order.
    turned = {**request, "secrets": dict(reversed(request["secrets"].items()))}
    again = stack.invoke("put", turned).body["secrets"]
    assert sorted(again, key=str) == sorted(first.body["secrets"], key=str)
    # With other names it is another request, with a token of its own.
    fewer = {**request, "secrets": {f"{name}/1": "s"}}
    assert [each["version"] for each in stack.done("put", **fewer)["secrets"]] == [2]
    assert stack.invoke("put", request).body == first.body


def test_an_event_that_a_schedule_delivers_twice_works_once(stack, iam, name):
    """Two schedules with one event, as EventBridge may deliver one twice."""
    role = f"scheduler-{os.getpid()}"
    trust = allow("sts:AssumeRole", None)
    del trust["Statement"][0]["Resource"]
    trust["Statement"][0]["Principal"] = {"Service": "scheduler.amazonaws.com"}
    arn = iam.create_role(RoleName=role, AssumeRolePolicyDocument=json.dumps(trust))["Role"]["Arn"]
    function = f"arn:aws:lambda:{REGION}:{ACCOUNT}:function:{stack.functions['put']}"
    iam.put_role_policy(
        RoleName=role,
        PolicyName="put",
        PolicyDocument=json.dumps(allow("lambda:InvokeFunction", function)),
    )
    scheduler = client("scheduler")
    moment = datetime.now(timezone.utc) + timedelta(seconds=6)
    event = {"name": name, "generate": {}, "token": f"{name} {moment}"}
    names = [f"twice-{os.getpid()}-{number}" for number in range(2)]
    for schedule in names:
        scheduler.create_schedule(
            Name=schedule,
            ScheduleExpression=f"at({moment:%Y-%m-%dT%H:%M:%S})",
            FlexibleTimeWindow={"Mode": "OFF"},
            Target={"Arn": function, "RoleArn": arn, "Input": json.dumps(event)},
        )
    # Both have been delivered once the function has logged them.
    deadline = time.monotonic() + 120
    while delivered(stack, name) < 2:
        assert time.monotonic() < deadline, "the schedules did not fire"
        time.sleep(0.5)
    assert len(stack.versions_of(name)) == 1
    assert len(stack.history(name)) == 1
    for schedule in names:
        scheduler.delete_schedule(Name=schedule)


def delivered(stack, name):
    """How many puts of this name the function has logged."""
    lines = stack.logs("put").splitlines()
    return sum(f'"name":"{name}"' in line and '"code":"OK"' in line for line in lines)


def token_entries(stack, name):
    """The entries that remember requests about this name."""
    rows, more = [], {}
    while True:
        page = stack.entries.scan(ConsistentRead=True, **more)
        rows += page["Items"]
        if "LastEvaluatedKey" not in page:
            return [row for row in rows if row["entry"] == "token" and name in row["answer"]]
        more = {"ExclusiveStartKey": page["LastEvaluatedKey"]}


def test_a_caller_of_other_names_cannot_use_up_or_probe_a_token(stack, caller, name):
    """A caller limited to dev/* guesses the token of production's nightly put."""
    dev, prod = f"{name}/dev/any", f"{name}/prod/db"
    attacker = caller(f"PUT/secrets/{name}/dev/*")
    request = {"secret": "s", "token": f"{name} nightly"}
    guess = stack.by_http("put", {"name": dev, **request}, credentials=attacker)
    assert (guess.code, guess.body["version"]) == ("OK", 1)
    first = stack.invoke("put", {"name": prod, **request})
    assert (first.code, first.body["version"]) == ("OK", 1), first
    assert stack.invoke("put", {"name": prod, **request}).body == first.body
    # The answer is the same whether production has used the token or not.
    other = f"{name}/dev/other"
    probe = stack.by_http("put", {"name": other, **request}, credentials=attacker)
    assert (probe.code, probe.body["version"]) == ("OK", 1)
    assert stack.by_http("put", {"name": prod, **request}, credentials=attacker).status == 403
    assert len(stack.versions_of(prod)) == 1


def test_a_request_sent_again_after_the_update_is_done_once(stack, name):
    """Its entry lies under the key that earlier releases used: the hash of the token alone."""
    token = f"{name} former"
    request = {"name": name, "secret": "s", "token": token}
    first = stack.invoke("put", request)
    (entry,) = token_entries(stack, name)
    stack.entries.delete_item(Key={"name": entry["name"], "entry": "token"})
    former = f"/token/{hashlib.sha256(token.encode()).hexdigest()}"
    assert entry["name"] != former
    stack.entries.put_item(Item={**entry, "name": former})
    assert stack.invoke("put", request).body == first.body
    assert len(stack.versions_of(name)) == 1
    # What another request left there refuses nobody.
    stack.entries.put_item(Item={**entry, "name": former, "fingerprint": Binary(b"x" * 32)})
    again = stack.invoke("put", request)
    assert (again.code, again.body["version"]) == ("OK", 2)
