"""Misconfiguration: missing permissions, settings, tables and keys, and forbidden deletes."""

import json
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from conftest import Faults, Stack, allow, client
from fault_cases import CALLS_OF, ROTATIONS, WRITE, both, count, fault, prepare, request_of

Deny = Callable[[str, str], None]
Configure = Callable[..., None]


@pytest.fixture
def without(iam: Any, stack: Stack) -> Iterator[Deny]:
    """Denies one action to a function's role: `without(verb, action)`."""
    denied: list[str] = []

    def deny(verb: str, action: str) -> None:
        policy = json.dumps(allow(action, "*", effect="Deny"))
        role = stack.role(verb)
        iam.put_role_policy(RoleName=role, PolicyName="taken", PolicyDocument=policy)
        denied.append(role)

    yield deny
    for role in denied:
        iam.delete_role_policy(RoleName=role, PolicyName="taken")


@pytest.mark.parametrize(
    ("verb", "action", "fields"),
    [
        ("put", "kms:GenerateDataKey", {}),
        ("put", "dynamodb:Query", {}),
        ("put", "dynamodb:PutItem", {}),
        ("get", "kms:Decrypt", {}),
        ("get", "dynamodb:Query", {}),
        ("get", "dynamodb:Query", {"version": 1}),
        ("get", "dynamodb:Query", {"revision": "0123456"}),
        ("list", "dynamodb:Scan", {}),
        ("list", "dynamodb:Query", {"versions": True}),
        ("delete", "dynamodb:Query", {}),
        ("delete", "dynamodb:PutItem", {}),
        ("delete", "dynamodb:DeleteItem", {}),
        ("delete", "dynamodb:DeleteItem", {"force": True}),
        ("restore", "dynamodb:Query", {}),
        ("restore", "dynamodb:PutItem", {}),
        ("restore", "dynamodb:DeleteItem", {}),
        ("rewrap", "kms:ReEncryptFrom", {}),
        ("rewrap", "kms:ReEncryptTo", {}),
        ("rewrap", "dynamodb:Query", {}),
        ("rewrap", "dynamodb:UpdateItem", {}),
        ("reseal", "kms:Decrypt", {}),
        ("reseal", "dynamodb:Query", {}),
        ("reseal", "dynamodb:PutItem", {}),
        ("renew", "kms:GenerateDataKey", {}),
        ("renew", "dynamodb:Query", {}),
        ("renew", "dynamodb:PutItem", {}),
        ("policy", "dynamodb:Query", {}),
        ("policy", "dynamodb:PutItem", {}),
    ],
)
def test_a_missing_permission_is_named_in_the_log(
    stack: Stack, without: Deny, name: str, verb: str, action: str, fields: dict[str, Any]
) -> None:
    prepare(stack, verb, name)
    request = {**request_of(verb, name), **fields}
    if request.pop("versions", None):
        request["name"] = name
    without(verb, action)
    for origin, response in both(stack, verb, request):
        assert response.code == "Unavailable"
        assert (
            "permission of the function is missing" in response.message
            and "operator" in response.message
        )
        if origin == "direct":
            line = json.loads(response.log.splitlines()[-1])
            tables = (f"table/{stack.table}", f"table/{stack.ledger}")
            resources = (stack.key_arn,) if action.startswith("kms") else tables
            assert action in line["detail"]
            assert any(resource in line["detail"] for resource in resources)
            assert "AccessDenied" in line["detail"] and line["level"] == "ERROR"
    assert count(stack, name) == 1


def test_a_disabled_key_and_one_pending_deletion_are_reported(
    stack: Stack, kms: Any, name: str
) -> None:
    stack.put(name, "s")
    arn = stack.key_arn
    states = {
        "disabled": (lambda: kms.disable_key(KeyId=arn), lambda: kms.enable_key(KeyId=arn)),
        "pending deletion": (
            lambda: kms.schedule_key_deletion(KeyId=arn, PendingWindowInDays=7),
            lambda: (kms.cancel_key_deletion(KeyId=arn), kms.enable_key(KeyId=arn)),
        ),
    }
    for disable, enable in states.values():
        disable()
        try:
            for verb, action in (("get", "kms:Decrypt"), ("put", "kms:GenerateDataKey")):
                response = stack.invoke(verb, request_of(verb, name))
                assert response.code == "Unavailable"
                assert "key" in response.message and "operator" in response.message
                assert action in response.log and arn in response.log
                assert "Enable the key" in response.log
        finally:
            enable()
    assert stack.get(name)["secret"] == "s"
    assert len(stack.versions_of(name)) == 1


@pytest.fixture
def configured(stack: Stack) -> Iterator[Configure]:
    """Changes a function's environment variables for a test: `configured(verb, NAME="value")`."""
    functions = client("lambda")
    changed: dict[str, dict[str, str]] = {}

    def change(verb: str, **variables: str) -> None:
        function = stack.functions[verb]
        config = functions.get_function_configuration(FunctionName=function)
        before = config["Environment"]["Variables"]
        changed.setdefault(function, before)
        functions.update_function_configuration(
            FunctionName=function, Environment={"Variables": {**before, **variables}}
        )

    yield change
    for function, before in changed.items():
        functions.update_function_configuration(
            FunctionName=function, Environment={"Variables": before}
        )


# The functions that use the ledger.
WITH_LEDGER = ["put", "delete", "restore", *ROTATIONS, "policy"]


@pytest.mark.parametrize(
    ("verb", "setting"),
    [(verb, "COFFER_TABLE") for verb in CALLS_OF]
    + [(verb, "COFFER_LEDGER") for verb in WITH_LEDGER],
)
def test_a_missing_setting_is_reported(
    stack: Stack, configured: Configure, name: str, verb: str, setting: str
) -> None:
    configured(verb, **{setting: ""})
    for origin, response in both(stack, verb, request_of(verb, name)):
        assert response.code == "Unavailable"
        assert "setting" in response.message and "operator" in response.message
        assert origin == "http" or setting in response.log


@pytest.mark.parametrize("verb", CALLS_OF)
def test_a_missing_table_is_reported(
    stack: Stack, iam: Any, configured: Configure, name: str, verb: str
) -> None:
    prepare(stack, verb, name)
    role = stack.role(verb)
    policy = json.dumps(allow("dynamodb:*", "*"))
    iam.put_role_policy(RoleName=role, PolicyName="wide", PolicyDocument=policy)
    try:
        configured(verb, COFFER_TABLE="no-such-table")
        for _, response in both(stack, verb, request_of(verb, name)):
            assert response.code == "Unavailable"
            assert "does not exist" in response.message and "operator" in response.message
        log = stack.invoke(verb, request_of(verb, name)).log
        assert "table/no-such-table" in log and "ResourceNotFoundException" in log
    finally:
        iam.delete_role_policy(RoleName=role, PolicyName="wide")


@pytest.mark.parametrize("verb", ROTATIONS)
def test_rotate_reports_its_own_missing_permission_and_setting(
    stack: Stack, configured: Configure, without: Deny, name: str, verb: str
) -> None:
    prepare(stack, verb, name)
    request = {"action": verb, "name": name}
    without("rotate", "lambda:InvokeFunction")
    for origin, response in stack.both("rotate", request):
        assert (
            response.code == "Unavailable"
            and "permission of the function is missing" in response.message
        )
        assert response.status == (503 if origin == "http" else None)
        if origin == "direct":
            assert "lambda:InvokeFunction" in response.log and stack.functions[verb] in response.log
    configured("rotate", **{f"COFFER_{verb.upper()}_FUNCTION": ""})
    for origin, response in stack.both("rotate", request):
        assert response.code == "Unavailable" and "setting" in response.message
        assert origin == "http" or f"COFFER_{verb.upper()}_FUNCTION" in response.log
    assert count(stack, name) == 1


@pytest.mark.parametrize("call", ["dynamodb:Scan", WRITE])
def test_remind_reports_failures(
    stack: Stack, faults: Faults, without: Deny, name: str, call: str
) -> None:
    stack.put(name, "s", ttl=60)
    for kind in ("throttle", "error"):
        faults.set(fault(call, kind))
        response = stack.invoke("remind", {})
        assert response.code == "Unavailable" and call in response.log
    faults.set()
    without("remind", "dynamodb:Scan" if call == "dynamodb:Scan" else "dynamodb:PutItem")
    response = stack.invoke("remind", {})
    assert response.code == "Unavailable" and "AccessDenied" in response.log
    assert stack.entries_of(name, "notice#") == []


def test_a_stack_can_refuse_forced_deletes(stack: Stack, configured: Configure, name: str) -> None:
    stack.put(name, "s")
    stack.put(f"{name}/deleted", "s")
    stack.done("delete", name=f"{name}/deleted")
    # An invalid setting refuses, too.
    for setting in ("refuse", "Allow", ""):
        configured("delete", COFFER_FORCED_DELETE=setting)
        for secret_name in (name, f"{name}/deleted"):
            for origin, response in stack.both("delete", {"name": secret_name, "force": True}):
                assert response.code == "Forbidden" and "recovery window" in response.message
                assert response.status == (403 if origin == "http" else None)
    assert count(stack, name) == count(stack, f"{name}/deleted") == 1
    assert stack.done("delete", name=name)["versions"] == [1]


@pytest.mark.parametrize(("verb", "action"), [("put", "GenerateDataKey"), ("get", "Decrypt")])
def test_a_missing_key_is_reported(
    stack: Stack, iam: Any, configured: Configure, name: str, verb: str, action: str
) -> None:
    stack.put(name, "s")
    role = stack.role(verb)
    arn = stack.key_arn[:-12] + "0" * 12
    policy = json.dumps(allow("kms:*", "*"))
    iam.put_role_policy(RoleName=role, PolicyName="wide", PolicyDocument=policy)
    try:
        configured(verb, COFFER_KEY_ARN=arn)
        response = stack.invoke(verb, request_of(verb, name))
        assert response.code == "Unavailable"
        assert "does not exist" in response.message
        assert f"kms:{action}" in response.log and arn in response.log
        configured(verb, COFFER_KEY_ARN="")
        response = stack.invoke(verb, request_of(verb, name))
        assert response.code == "Unavailable"
        assert "COFFER_KEY_ARN" in response.log
    finally:
        iam.delete_role_policy(RoleName=role, PolicyName="wide")
    assert len(stack.versions_of(name)) == 1
