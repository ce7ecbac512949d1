"""AWS when it throttles, hangs, loses answers, or lacks a permission, a table or a key."""

import json
import time
from concurrent.futures import ThreadPoolExecutor

import pytest
from conftest import allow, client
from legacy import Writer

LIMIT = 29
BUSY = {"put": ["dynamodb:Query", "kms:GenerateDataKey", "dynamodb:TransactWriteItems"],
        "get": ["dynamodb:Query", "kms:Decrypt"],
        "list": ["dynamodb:Scan"],
        "delete": ["dynamodb:Query", "dynamodb:TransactWriteItems"],
        "restore": ["dynamodb:Query", "dynamodb:TransactWriteItems"],
        "rewrap": ["dynamodb:Query", "kms:ReEncrypt", "dynamodb:UpdateItem"],
        "reseal": ["dynamodb:Query", "kms:Decrypt", "dynamodb:TransactWriteItems"],
        "renew": ["dynamodb:Query", "kms:GenerateDataKey", "dynamodb:TransactWriteItems"],
        "policy": ["dynamodb:Query", "dynamodb:TransactWriteItems"]}
ROTATIONS = ("rewrap", "reseal", "renew")
CALLS = [(verb, call) for verb, calls in BUSY.items() for call in calls]


def request_of(verb, name):
    if verb in ROTATIONS:
        return {"action": verb, "name": name}
    requests = {
        "put": {"name": name, "secret": "new"},
        "list": {},
        "policy": {"policy": "put", "name": name, "days": 1},
    }
    return requests.get(verb, {"name": name})


def both(stack, verb, request):
    """By both doors: over HTTP, a rotation comes by way of rotate."""
    yield "direct", stack.invoke(verb, request)
    yield "http", stack.by_http("rotate" if verb in ROTATIONS else verb, request)


def prepare(stack, verb, name):
    """One version, where the verb looks for it and has something to do."""
    if verb == "reseal":
        writer = Writer(client("kms"), stack.key_arn)
        stack.rows.put_item(Item=writer.row(name, "s"))
        return
    stack.put(name, "s")
    if verb == "restore":
        stack.done("delete", name=name)
    if verb == "rewrap":
        client("kms").rotate_key_on_demand(KeyId=stack.key_arn)
    if verb == "renew":
        stack.done("policy", policy="put", name=name, days=1)


def count(stack, name):
    """How many versions there are, live or awaiting recovery."""
    return len(stack.versions_of(name)) + len(stack.entries_of(name, "deleted#"))


def fault(call, kind, **more):
    service, operation = call.split(":")
    return {"service": service, "operation": operation, "kind": kind, **more}


@pytest.mark.parametrize(("verb", "call"), CALLS)
@pytest.mark.parametrize("kind", ["throttle", "error"])
def test_what_stays_busy_is_unavailable(stack, faults, name, verb, call, kind):
    prepare(stack, verb, name)
    faults.set(fault(call, kind))
    for origin, answer in both(stack, verb, request_of(verb, name)):
        assert answer.code == "Unavailable"
        assert "ry again" in answer.message
        if origin == "http":
            assert answer.status == 503
            assert int(answer.headers["retry-after"]) >= 1
        else:
            assert call in answer.log
    faults.set()
    assert count(stack, name) == 1


@pytest.mark.parametrize(("verb", "call"), CALLS)
@pytest.mark.parametrize("kind", ["throttle", "error"])
def test_what_is_busy_for_a_moment_is_not_noticed(stack, faults, name, verb, call, kind):
    prepare(stack, verb, name)
    faults.set(fault(call, kind, count=2))
    assert stack.invoke(verb, request_of(verb, name)).code == "OK"


@pytest.mark.parametrize(("verb", "call"), CALLS)
def test_what_hangs_is_unavailable_within_the_functions_time(stack, faults, name, verb, call):
    prepare(stack, verb, name)
    faults.set(fault(call, "delay", seconds=40))
    began = time.monotonic()
    answer = stack.invoke(verb, request_of(verb, name))
    assert answer.code == "Unavailable"
    assert "ry again" in answer.message
    assert time.monotonic() - began < LIMIT
    assert call in answer.log


WRITE = "dynamodb:TransactWriteItems"


def test_a_write_whose_answer_was_lost_is_not_doubled(stack, faults, name):
    """DynamoDB does the write and answers an error; the SDK's retry meets its own row."""
    faults.set(fault(WRITE, "lost", count=1))
    answer = stack.invoke("put", {"name": name, "secret": "once"})
    assert (answer.code, answer.body["version"]) == ("OK", 1)
    faults.set(fault(WRITE, "lost", count=1))
    answer = stack.invoke("put", {"name": name, "secret": "again", "version": 2})
    assert (answer.code, answer.body["version"]) == ("OK", 2)
    assert [row["version"] for row in stack.versions_of(name)] == [f"{n:019}" for n in (1, 2)]
    assert stack.get(name)["secret"] == "again"
    for verb in ("delete", "restore"):
        faults.set(fault(WRITE, "lost", count=1))
        assert stack.done(verb, name=name)["versions"] == [1, 2]
    assert len(stack.history(name)) == 4
    assert stack.verify(name) == {}


@pytest.mark.parametrize("kind", ["conflict", "busy"])
@pytest.mark.parametrize("verb", ["put", "delete", "restore", "reseal", "renew", "policy"])
def test_a_cancelled_transaction_is_tried_again(stack, faults, name, verb, kind):
    prepare(stack, verb, name)
    faults.set(fault(WRITE, kind, count=3))
    answer = stack.invoke(verb, request_of(verb, name))
    assert answer.code == "OK"
    assert count(stack, name) == (2 if verb in ("put", "renew") else 1)
    assert stack.verify(name) == {}


@pytest.mark.parametrize("verb", ["put", "delete", "restore", "reseal", "renew", "policy"])
def test_transactions_that_stay_throttled_are_unavailable(stack, faults, name, verb):
    prepare(stack, verb, name)
    faults.set(fault(WRITE, "busy"))
    answer = stack.invoke(verb, request_of(verb, name))
    assert answer.code == "Unavailable" and "ry again" in answer.message
    assert WRITE in answer.log and "quota" in answer.log
    faults.set()
    assert count(stack, name) == 1


def test_a_put_with_a_token_is_safe_to_send_again_whatever_came_of_it(stack, faults, name):
    request = {"name": name, "secret": "s", "token": name}
    faults.set(fault(WRITE, "lost"))
    answer = stack.invoke("put", request)
    assert answer.code == "Unavailable" and "`token`" in answer.message
    faults.set()
    assert stack.invoke("put", request).body["version"] == 1
    assert len(stack.versions_of(name)) == 1


def test_a_bundle_is_unavailable_whole(stack, faults, name):
    stack.done("put", prefix=name, secrets={f"{name}/{n}": "s" for n in range(20)})
    faults.set(fault("kms:Decrypt", "throttle", count=8))
    assert len(stack.done("get", prefix=name)["secrets"]) == 20
    faults.set(fault("kms:Decrypt", "throttle"))
    for _, answer in stack.both("get", {"prefix": name}):
        assert answer.code == "Unavailable"
        assert "secrets" not in answer.body


def test_a_throttled_bundle_takes_no_retry_from_the_next_request(stack, faults, name):
    """The SDK's own retry quota is one for all calls of a process, and only successes refill it."""
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


@pytest.fixture
def without(iam, stack):
    """Takes one action away from a function's role."""
    denied = []

    def take(verb, action):
        policy = json.dumps(allow(action, "*", effect="Deny"))
        role = stack.role(verb)
        iam.put_role_policy(RoleName=role, PolicyName="taken", PolicyDocument=policy)
        denied.append(role)

    yield take
    for role in denied:
        iam.delete_role_policy(RoleName=role, PolicyName="taken")


@pytest.mark.parametrize(
    ("verb", "action", "request_"),
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
def test_a_missing_permission_is_named_to_the_operator(
    stack, without, name, verb, action, request_
):
    prepare(stack, verb, name)
    request = {**request_of(verb, name), **request_}
    if request.pop("versions", None):
        request["name"] = name
    without(verb, action)
    for origin, answer in both(stack, verb, request):
        assert answer.code == "Unavailable"
        assert "permission of the function is missing" in answer.message and "operator" in answer.message
        if origin == "direct":
            line = json.loads(answer.log.splitlines()[-1])
            tables = (f"table/{stack.table}", f"table/{stack.ledger}")
            places = (stack.key_arn,) if action.startswith("kms") else tables
            assert action in line["detail"]
            assert any(place in line["detail"] for place in places)
            assert "AccessDenied" in line["detail"] and line["level"] == "ERROR"
    assert count(stack, name) == 1


def test_a_disabled_key_and_one_in_deletion_say_so(stack, kms, name):
    stack.put(name, "s")
    arn = stack.key_arn
    states = {
        "disabled": (lambda: kms.disable_key(KeyId=arn), lambda: kms.enable_key(KeyId=arn)),
        "in deletion": (
            lambda: kms.schedule_key_deletion(KeyId=arn, PendingWindowInDays=7),
            lambda: (kms.cancel_key_deletion(KeyId=arn), kms.enable_key(KeyId=arn)),
        ),
    }
    for take, give_back in states.values():
        take()
        try:
            for verb, action in (("get", "kms:Decrypt"), ("put", "kms:GenerateDataKey")):
                answer = stack.invoke(verb, request_of(verb, name))
                assert answer.code == "Unavailable"
                assert "key" in answer.message and "operator" in answer.message
                assert action in answer.log and arn in answer.log
                assert "Enable the key" in answer.log
        finally:
            give_back()
    assert stack.get(name)["secret"] == "s"
    assert len(stack.versions_of(name)) == 1


@pytest.fixture
def configured(stack):
    """Changes a function's environment for a test."""
    functions, changed = client("lambda"), {}

    def change(verb, **variables):
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


LEDGERED = ["put", "delete", "restore", *ROTATIONS, "policy"]


@pytest.mark.parametrize(
    ("verb", "setting"),
    [(verb, "COFFER_TABLE") for verb in BUSY] + [(verb, "COFFER_LEDGER") for verb in LEDGERED],
)
def test_a_missing_setting_says_so(stack, configured, name, verb, setting):
    configured(verb, **{setting: ""})
    for origin, answer in both(stack, verb, request_of(verb, name)):
        assert answer.code == "Unavailable"
        assert "setting" in answer.message and "operator" in answer.message
        assert origin == "http" or setting in answer.log


@pytest.mark.parametrize("verb", BUSY)
def test_a_missing_table_says_so(stack, iam, configured, name, verb):
    prepare(stack, verb, name)
    role = stack.role(verb)
    policy = json.dumps(allow("dynamodb:*", "*"))
    iam.put_role_policy(RoleName=role, PolicyName="wide", PolicyDocument=policy)
    try:
        configured(verb, COFFER_TABLE="no-such-table")
        for _, answer in both(stack, verb, request_of(verb, name)):
            assert answer.code == "Unavailable"
            assert "is not there" in answer.message and "operator" in answer.message
        log = stack.invoke(verb, request_of(verb, name)).log
        assert "table/no-such-table" in log and "ResourceNotFoundException" in log
    finally:
        iam.delete_role_policy(RoleName=role, PolicyName="wide")


@pytest.mark.parametrize("verb", ROTATIONS)
def test_the_door_of_rotations_says_so_too(stack, configured, without, name, verb):
    prepare(stack, verb, name)
    request = {"action": verb, "name": name}
    without("rotate", "lambda:InvokeFunction")
    for origin, answer in stack.both("rotate", request):
        assert answer.code == "Unavailable" and "permission of the function is missing" in answer.message
        assert answer.status == (503 if origin == "http" else None)
        if origin == "direct":
            assert "lambda:InvokeFunction" in answer.log and stack.functions[verb] in answer.log
    configured("rotate", **{f"COFFER_{verb.upper()}_FUNCTION": ""})
    for origin, answer in stack.both("rotate", request):
        assert answer.code == "Unavailable" and "setting" in answer.message
        assert origin == "http" or f"COFFER_{verb.upper()}_FUNCTION" in answer.log
    assert count(stack, name) == 1


def test_a_rotation_that_is_killed_says_to_ask_again(stack, kms, faults, name):
    """The function behind the door is gone in the middle of its work."""
    prepare(stack, "rewrap", name)
    faults.set(fault("kms:ReEncrypt", "delay", seconds=3))
    functions, function = client("lambda"), stack.functions["rewrap"]
    before = functions.get_function_configuration(FunctionName=function)["Environment"]
    with ThreadPoolExecutor(1) as pool:
        asked = pool.submit(stack.by_http, "rotate", {"action": "rewrap", "name": name})
        deadline = time.monotonic() + 20
        while "kms:ReEncrypt" not in faults.rates() and time.monotonic() < deadline:
            time.sleep(0.05)
        variables = {**before["Variables"], "KILLED": "yes"}
        functions.update_function_configuration(
            FunctionName=function, Environment={"Variables": variables}
        )
        answer = asked.result()
    faults.set()
    functions.update_function_configuration(FunctionName=function, Environment=before)
    assert (answer.status, answer.code) == (503, "Unavailable")
    assert "goes on" in answer.message
    assert stack.done("rotate", action="rewrap", name=name)["failed"] == 0


@pytest.mark.parametrize("call", ["dynamodb:Scan", WRITE])
def test_remind_says_so_too(stack, faults, without, name, call):
    stack.put(name, "s", ttl=60)
    for kind in ("throttle", "error"):
        faults.set(fault(call, kind))
        answer = stack.invoke("remind", {})
        assert answer.code == "Unavailable" and call in answer.log
    faults.set()
    without("remind", "dynamodb:Scan" if call == "dynamodb:Scan" else "dynamodb:PutItem")
    answer = stack.invoke("remind", {})
    assert answer.code == "Unavailable" and "AccessDenied" in answer.log
    assert stack.entries_of(name, "notice#") == []


def test_a_stack_may_refuse_to_delete_for_good(stack, configured, name):
    stack.put(name, "s")
    stack.put(f"{name}/buried", "s")
    stack.done("delete", name=f"{name}/buried")
    # A setting that is mistyped refuses, too.
    for setting in ("refuse", "Allow", ""):
        configured("delete", COFFER_FORCED_DELETE=setting)
        for each in (name, f"{name}/buried"):
            for origin, answer in stack.both("delete", {"name": each, "force": True}):
                assert answer.code == "Forbidden" and "recovery window" in answer.message
                assert answer.status == (403 if origin == "http" else None)
    assert count(stack, name) == count(stack, f"{name}/buried") == 1
    assert stack.done("delete", name=name)["versions"] == [1]


@pytest.mark.parametrize(("verb", "action"), [("put", "GenerateDataKey"), ("get", "Decrypt")])
def test_a_missing_key_says_so(stack, iam, configured, name, verb, action):
    stack.put(name, "s")
    role = stack.role(verb)
    arn = stack.key_arn[:-12] + "0" * 12
    policy = json.dumps(allow("kms:*", "*"))
    iam.put_role_policy(RoleName=role, PolicyName="wide", PolicyDocument=policy)
    try:
        configured(verb, COFFER_KEY_ARN=arn)
        answer = stack.invoke(verb, request_of(verb, name))
        assert answer.code == "Unavailable"
        assert "is not there" in answer.message
        assert f"kms:{action}" in answer.log and arn in answer.log
        configured(verb, COFFER_KEY_ARN="")
        answer = stack.invoke(verb, request_of(verb, name))
        assert answer.code == "Unavailable"
        assert "COFFER_KEY_ARN" in answer.log
    finally:
        iam.delete_role_policy(RoleName=role, PolicyName="wide")
    assert len(stack.versions_of(name)) == 1
