"""A put with an idempotency token is applied once, however often it is sent."""

import hashlib
import json
import os
import time
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from boto3.dynamodb.types import Binary

from conftest import ACCOUNT, REGION, MakeCaller, Stack, allow, client
from tables import scan

CALLERS = 50


def token_entries(stack: Stack, name: str) -> list[Any]:
    """Returns the ledger's entries for tokens of this name."""
    entries = scan(stack.entries)
    return [entry for entry in entries if entry["entry"] == "token" and name in entry["answer"]]


def test_a_repeated_put_creates_one_version_and_returns_the_same_response(
    stack: Stack, name: str
) -> None:
    request = {"name": name, "secret": "s", "token": f"{name} 1", "comment": "c", "ttl": 3600}
    first = stack.invoke("put", request)
    assert first.code == "OK"
    for _, again in stack.both("put", request):
        assert again.body == first.body
    # The value is not compared: a stored hash of it could be brute-forced.
    assert stack.invoke("put", {**request, "secret": "other"}).body == first.body
    assert len(stack.versions_of(name)) == 1
    assert len(stack.history(name)) == 1
    assert stack.put(name, "s", token=f"{name} 2")["version"] == 2
    # Neither later versions nor a delete change the response.
    assert stack.invoke("put", request).body == first.body
    stack.done("delete", name=name)
    assert stack.invoke("put", request).body == first.body


@pytest.mark.parametrize("method", ["invoke", "by_http"])
def test_fifty_concurrent_puts_with_one_token_create_one_version(
    stack: Stack, name: str, method: str
) -> None:
    request = {"name": name, "generate": {}, "token": name}
    with ThreadPoolExecutor(CALLERS) as pool:
        responses = list(pool.map(lambda _: getattr(stack, method)("put", request), range(CALLERS)))
    assert {response.code for response in responses} == {"OK"}
    assert len({json.dumps(response.body) for response in responses}) == 1
    assert len(stack.versions_of(name)) == 1
    assert len(stack.history(name)) == 1


def test_fifty_concurrent_puts_of_an_explicit_version_all_succeed(stack: Stack, name: str) -> None:
    request = {"name": name, "secret": "s", "version": 7, "token": name}
    with ThreadPoolExecutor(CALLERS) as pool:
        responses = list(pool.map(lambda _: stack.invoke("put", request), range(CALLERS)))
    assert {response.code for response in responses} == {"OK"}
    assert {response.body["version"] for response in responses} == {7}


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
def test_the_token_of_a_different_request_is_refused(
    stack: Stack, name: str, change: dict[str, Any]
) -> None:
    request = {"name": name, "secret": "s", "token": name, "ttl": 60}
    stack.done("put", **request)
    other = {field: value for field, value in {**request, **change}.items() if value is not None}
    for origin, response in stack.both("put", other):
        assert response.code == "Exists"
        assert response.status == (409 if origin == "http" else None)
        assert "token" in response.message
    assert len(stack.versions_of(name)) == 1


@pytest.mark.parametrize("token", ["", "t" * 257, "ü" * 129, 5, None, ["t"]], ids=str)
def test_an_invalid_token_is_refused(stack: Stack, name: str, token: Any) -> None:
    request = {"name": name, "secret": "s", "token": token}
    assert stack.invoke("put", request).code == "Invalid"
    assert stack.versions_of(name) == []


def test_a_token_can_be_any_text(stack: Stack, name: str) -> None:
    for token in ("ключ\n🔑", "t" * 256, "<aws.scheduler.scheduled-time>", " \0"):
        token = (name + token)[:256]
        first = stack.put(name, "s", token=token)
        assert stack.put(name, "s", token=token) == first


def test_a_repeated_put_succeeds_after_its_version_has_expired(stack: Stack, name: str) -> None:
    end = datetime.now(UTC) + timedelta(seconds=5)
    request = {"name": name, "secret": "s", "token": name, "expires_at": end.isoformat()}
    first = stack.invoke("put", request)
    while datetime.now(UTC) <= end + timedelta(seconds=1):
        assert stack.invoke("put", request).body == first.body
    assert stack.invoke("put", {**request, "token": f"{name} 2"}).code == "Invalid"


def test_a_token_is_stored_as_a_hash_for_one_day(stack: Stack, name: str) -> None:
    token = f"{name} token"
    stack.put(name, "s", token=token)
    matching = token_entries(stack, name)
    assert len(matching) == 1 and token not in str(matching)
    assert int(matching[0]["ttl"]) == pytest.approx(time.time() + 24 * 3600, abs=60)
    # DynamoDB deletes expired items with a delay. Until then, Coffer ignores them.
    stack.entries.put_item(Item={**matching[0], "ttl": 1})
    assert stack.put(name, "s", token=token)["version"] == 2
    assert stack.put(name, "s", token=token)["version"] == 2


def test_a_repeated_put_of_a_bundle_returns_the_same_response(stack: Stack, name: str) -> None:
    secrets = {f"{name}/{number}": "s" for number in range(49)}
    request = {"prefix": name, "token": name, "secrets": secrets}
    first = stack.invoke("put", request)
    assert first.code == "OK"
    for _, again in stack.both("put", request):
        assert again.body == first.body
    # The order of a map does not matter.
    reordered = {**request, "secrets": dict(reversed(secrets.items()))}
    again = stack.invoke("put", reordered).body["secrets"]
    assert sorted(again, key=str) == sorted(first.body["secrets"], key=str)
    # The token belongs to the names, so with other names it is a different request.
    fewer = {**request, "secrets": {f"{name}/1": "s"}}
    assert [secret["version"] for secret in stack.done("put", **fewer)["secrets"]] == [2]
    assert stack.invoke("put", request).body == first.body


def test_a_request_that_a_schedule_delivers_twice_creates_one_version(
    stack: Stack, iam: Any, name: str
) -> None:
    """Uses two schedules with one request, because EventBridge Scheduler may deliver one twice."""
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
    start = datetime.now(UTC) + timedelta(seconds=6)
    request = {"name": name, "generate": {}, "token": f"{name} {start}"}
    schedules = [f"twice-{os.getpid()}-{number}" for number in range(2)]
    for schedule in schedules:
        scheduler.create_schedule(
            Name=schedule,
            ScheduleExpression=f"at({start:%Y-%m-%dT%H:%M:%S})",
            FlexibleTimeWindow={"Mode": "OFF"},
            Target={"Arn": function, "RoleArn": arn, "Input": json.dumps(request)},
        )
    # The function logs each delivery.
    deadline = time.monotonic() + 120
    while delivered(stack, name) < 2:
        assert time.monotonic() < deadline, "the schedules did not fire"
        time.sleep(0.5)
    assert len(stack.versions_of(name)) == 1
    assert len(stack.history(name)) == 1
    for schedule in schedules:
        scheduler.delete_schedule(Name=schedule)


def delivered(stack: Stack, name: str) -> int:
    """Returns how many puts of this name the function has logged."""
    lines = stack.logs("put").splitlines()
    return sum(f'"name":"{name}"' in line and '"code":"OK"' in line for line in lines)


def test_a_caller_cannot_consume_or_probe_tokens_of_names_outside_its_policy(
    stack: Stack, caller: MakeCaller, name: str
) -> None:
    """A caller that may put only dev/* guesses the token of production's nightly put."""
    dev, prod = f"{name}/dev/any", f"{name}/prod/db"
    attacker = caller(f"PUT/secrets/{name}/dev/*")
    request = {"secret": "s", "token": f"{name} nightly"}
    guess = stack.by_http("put", {"name": dev, **request}, credentials=attacker)
    assert (guess.code, guess.body["version"]) == ("OK", 1)
    first = stack.invoke("put", {"name": prod, **request})
    assert (first.code, first.body["version"]) == ("OK", 1), first
    assert stack.invoke("put", {"name": prod, **request}).body == first.body
    # The response does not depend on whether production has used the token.
    other = f"{name}/dev/other"
    probe = stack.by_http("put", {"name": other, **request}, credentials=attacker)
    assert (probe.code, probe.body["version"]) == ("OK", 1)
    assert stack.by_http("put", {"name": prod, **request}, credentials=attacker).status == 403
    assert len(stack.versions_of(prod)) == 1


def test_a_token_stored_by_an_earlier_release_prevents_a_second_put(
    stack: Stack, name: str
) -> None:
    """Earlier releases stored a token under the hash of the token alone."""
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
    # An entry of a different request under that key does not block the put.
    stack.entries.put_item(Item={**entry, "name": former, "fingerprint": Binary(b"x" * 32)})
    again = stack.invoke("put", request)
    assert (again.code, again.body["version"]) == ("OK", 2)
