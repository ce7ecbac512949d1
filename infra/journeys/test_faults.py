"""Faults of AWS: throttling, errors, calls that hang, and lost responses."""

import time
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest

from conftest import Faults, Stack, client
from fault_cases import CALLS_OF, WRITE, both, count, fault, prepare, request_of

# The timeout of the functions.
FUNCTION_TIMEOUT = 29
CALLS = [(verb, call) for verb, calls in CALLS_OF.items() for call in calls]


@pytest.mark.parametrize(("verb", "call"), CALLS)
@pytest.mark.parametrize("kind", ["throttle", "error"])
def test_a_lasting_failure_returns_unavailable(
    stack: Stack, faults: Faults, name: str, verb: str, call: str, kind: str
) -> None:
    prepare(stack, verb, name)
    faults.set(fault(call, kind))
    for origin, response in both(stack, verb, request_of(verb, name)):
        assert response.code == "Unavailable"
        assert "ry again" in response.message
        if origin == "http":
            assert response.status == 503
            assert int(response.headers["retry-after"]) >= 1
        else:
            assert call in response.log
    faults.set()
    assert count(stack, name) == 1


@pytest.mark.parametrize(("verb", "call"), CALLS)
@pytest.mark.parametrize("kind", ["throttle", "error"])
def test_a_brief_failure_is_retried(
    stack: Stack, faults: Faults, name: str, verb: str, call: str, kind: str
) -> None:
    prepare(stack, verb, name)
    faults.set(fault(call, kind, count=2))
    assert stack.invoke(verb, request_of(verb, name)).code == "OK"


@pytest.mark.parametrize(("verb", "call"), CALLS)
def test_a_call_that_hangs_returns_unavailable_before_the_function_times_out(
    stack: Stack, faults: Faults, name: str, verb: str, call: str
) -> None:
    prepare(stack, verb, name)
    faults.set(fault(call, "delay", seconds=40))
    started = time.monotonic()
    response = stack.invoke(verb, request_of(verb, name))
    assert response.code == "Unavailable"
    assert "ry again" in response.message
    assert time.monotonic() - started < FUNCTION_TIMEOUT
    assert call in response.log


def test_a_write_with_a_lost_response_is_not_repeated(
    stack: Stack, faults: Faults, name: str
) -> None:
    """DynamoDB writes but returns an error, so the SDK's retry finds its own row."""
    faults.set(fault(WRITE, "lost", count=1))
    response = stack.invoke("put", {"name": name, "secret": "once"})
    assert (response.code, response.body["version"]) == ("OK", 1)
    faults.set(fault(WRITE, "lost", count=1))
    response = stack.invoke("put", {"name": name, "secret": "again", "version": 2})
    assert (response.code, response.body["version"]) == ("OK", 2)
    assert [row["version"] for row in stack.versions_of(name)] == [f"{n:019}" for n in (1, 2)]
    assert stack.get(name)["secret"] == "again"
    for verb in ("delete", "restore"):
        faults.set(fault(WRITE, "lost", count=1))
        assert stack.done(verb, name=name)["versions"] == [1, 2]
    assert len(stack.history(name)) == 4
    assert stack.verify(name) == {}


@pytest.mark.parametrize("kind", ["conflict", "busy"])
@pytest.mark.parametrize("verb", ["put", "delete", "restore", "reseal", "renew", "policy"])
def test_a_canceled_transaction_is_retried(
    stack: Stack, faults: Faults, name: str, verb: str, kind: str
) -> None:
    prepare(stack, verb, name)
    faults.set(fault(WRITE, kind, count=3))
    response = stack.invoke(verb, request_of(verb, name))
    assert response.code == "OK"
    assert count(stack, name) == (2 if verb in ("put", "renew") else 1)
    assert stack.verify(name) == {}


@pytest.mark.parametrize("verb", ["put", "delete", "restore", "reseal", "renew", "policy"])
def test_lasting_throttling_of_transactions_returns_unavailable(
    stack: Stack, faults: Faults, name: str, verb: str
) -> None:
    prepare(stack, verb, name)
    faults.set(fault(WRITE, "busy"))
    response = stack.invoke(verb, request_of(verb, name))
    assert response.code == "Unavailable" and "ry again" in response.message
    assert WRITE in response.log and "quota" in response.log
    faults.set()
    assert count(stack, name) == 1


def test_a_put_with_a_token_can_be_sent_again_after_a_failure(
    stack: Stack, faults: Faults, name: str
) -> None:
    request = {"name": name, "secret": "s", "token": name}
    faults.set(fault(WRITE, "lost"))
    response = stack.invoke("put", request)
    assert response.code == "Unavailable" and "`token`" in response.message
    faults.set()
    assert stack.invoke("put", request).body["version"] == 1
    assert len(stack.versions_of(name)) == 1


def test_a_bundle_is_unavailable_as_a_whole(stack: Stack, faults: Faults, name: str) -> None:
    stack.done("put", prefix=name, secrets={f"{name}/{n}": "s" for n in range(20)})
    faults.set(fault("kms:Decrypt", "throttle", count=8))
    assert len(stack.done("get", prefix=name)["secrets"]) == 20
    faults.set(fault("kms:Decrypt", "throttle"))
    for _, response in stack.both("get", {"prefix": name}):
        assert response.code == "Unavailable"
        assert "secrets" not in response.body


def test_a_throttled_bundle_leaves_the_next_request_its_retries(
    stack: Stack, faults: Faults, name: str
) -> None:
    """All calls of a process share the SDK's retry quota, and only successes refill it."""
    for part in range(4):
        secrets = {f"{name}/{part}-{n}": "s" for n in range(50)}
        stack.done("put", prefix=name, secrets=secrets)
    for _ in range(2):
        faults.set(fault("kms:Decrypt", "throttle"))
        assert stack.invoke("get", {"prefix": name}).code == "Unavailable"
        for tries in (1, 3):
            faults.set(fault("kms:Decrypt", "throttle", count=tries))
            faults.calls()
            assert stack.get(f"{name}/0-0")["secret"] == "s"
            assert faults.calls()["kms:Decrypt"] == tries + 1


def test_a_killed_rotation_returns_unavailable_and_can_be_repeated(
    stack: Stack, kms: Any, faults: Faults, name: str
) -> None:
    """The function that does the work ends while rotate waits for it."""
    prepare(stack, "rewrap", name)
    faults.set(fault("kms:ReEncrypt", "delay", seconds=3))
    functions, function = client("lambda"), stack.functions["rewrap"]
    before = functions.get_function_configuration(FunctionName=function)["Environment"]
    with ThreadPoolExecutor(1) as pool:
        pending = pool.submit(stack.by_http, "rotate", {"action": "rewrap", "name": name})
        deadline = time.monotonic() + 20
        while "kms:ReEncrypt" not in faults.rates() and time.monotonic() < deadline:
            time.sleep(0.05)
        variables = {**before["Variables"], "KILLED": "yes"}
        functions.update_function_configuration(
            FunctionName=function, Environment={"Variables": variables}
        )
        response = pending.result()
    faults.set()
    functions.update_function_configuration(FunctionName=function, Environment=before)
    assert (response.status, response.code) == (503, "Unavailable")
    assert "continues" in response.message
    assert stack.done("rotate", action="rewrap", name=name)["failed"] == 0
