"""Crashes: the functions are killed before and after every write.

Sending the request again completes it. Then every version is in exactly one place, opens, and has
one event.
"""

import io
import subprocess
import zipfile
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from conftest import ROOT, Response, Stack, client
from legacy import Writer

VERBS = ("put", "delete", "restore", "rewrap", "reseal", "renew")
# The packages of the functions whose package has another name.
PACKAGES = {"rewrap": "rotate", "reseal": "rotate", "renew": "rotate"}
# More crash points than any of these requests has.
MAX_POINTS = 60

# Calls a function that ends after so many crash points: (verb, points, request).
Crash = Callable[[str, int, dict[str, Any]], Response]


@pytest.fixture(scope="module")
def crashing(stack: Stack, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Crash]:
    """Deploys copies of the functions, with their roles and settings, that can be made to crash.

    They are built with a hook that ends the process at a chosen point before or after a write.
    """
    build = ["cargo", "build", "--quiet", "--features", "coffer/crash"]
    packages = {PACKAGES.get(verb, verb) for verb in VERBS}
    subprocess.run(build + [f"--package={package}" for package in packages], cwd=ROOT, check=True)
    functions = client("lambda")

    def create(verb: str) -> dict[str, str]:
        """Creates a copy of a function, and returns its settings."""
        deployed = functions.get_function_configuration(FunctionName=stack.functions[verb])
        binary = tmp_path_factory.mktemp("crash") / "bootstrap"
        subprocess.run(["strip", "-o", binary, ROOT / "target/debug" / verb], check=True)
        code = io.BytesIO()
        with zipfile.ZipFile(code, "w", zipfile.ZIP_DEFLATED) as archive:
            entry = zipfile.ZipInfo("bootstrap")
            entry.external_attr = 0o755 << 16
            archive.writestr(entry, binary.read_bytes(), compresslevel=1)
        functions.create_function(
            FunctionName=f"crashing-{verb}",
            Runtime="provided.al2023",
            Handler="bootstrap",
            Role=deployed["Role"],
            Timeout=deployed["Timeout"],
            MemorySize=deployed["MemorySize"],
            Environment=deployed["Environment"],
            Code={"ZipFile": code.getvalue()},
        )
        return deployed["Environment"]["Variables"]

    settings = {verb: create(verb) for verb in VERBS}

    def call(verb: str, points: int, request: dict[str, Any]) -> Response:
        """Calls the copy of a function, which crashes after so many points."""
        variables = {**settings[verb], "COFFER_CRASH_AFTER": str(points)}
        functions.update_function_configuration(
            FunctionName=f"crashing-{verb}", Environment={"Variables": variables}
        )
        return stack.call(f"crashing-{verb}", request)

    yield call
    for verb in VERBS:
        functions.delete_function(FunctionName=f"crashing-{verb}")


def crash_points() -> Iterator[int]:
    """Yields each crash point in turn. Fails if no call completes."""
    yield from range(MAX_POINTS)
    raise AssertionError("no call completed without a crash")


def crashed(response: Response) -> bool:
    """Returns whether the process of a call crashed."""
    if response.code == "OK":
        return False
    # A crash is not reported as one of Coffer's own errors.
    assert response.code not in ("Unavailable", "Exists", "NotFound", "Invalid"), response
    return True


def places(stack: Stack, name: str) -> tuple[list[int], list[int]]:
    """Returns the versions in the table of secrets, and the deleted versions in the ledger."""
    live = [int(row["version"]) for row in stack.versions_of(name)]
    kept = [int(entry["row"]["version"]) for entry in stack.entries_of(name, "deleted#")]
    return live, kept


def test_a_killed_put_with_a_token_is_done_once(stack: Stack, crashing: Crash, name: str) -> None:
    for point in crash_points():
        secret_name = f"{name}/{point}"
        request = {"name": secret_name, "secret": "s", "token": secret_name}
        first = crashing("put", point, request)
        again = stack.invoke("put", request)
        assert (again.code, again.body["version"]) == ("OK", 1)
        assert stack.invoke("put", request).body == again.body
        assert places(stack, secret_name) == ([1], [])
        assert stack.get(secret_name)["secret"] == "s"
        assert [event["version"] for event in stack.history(secret_name)] == [1]
        assert stack.verify(secret_name) == {}
        if not crashed(first):
            assert first.body == again.body
            break
    assert point == 2


def test_a_killed_put_of_a_bundle_is_complete_or_absent(
    stack: Stack, crashing: Crash, name: str
) -> None:
    """Puts 40 names: too many for one transaction, so their chain heads get one of their own."""
    for point in crash_points():
        prefix = f"{name}/{point}"
        names = [f"{prefix}/{number:02}" for number in range(40)]
        request = {"prefix": prefix, "secrets": dict.fromkeys(names, "s"), "token": prefix}
        first = crashing("put", point, request)
        assert len(stack.done("get", prefix=prefix)["secrets"]) in (0, 40)
        again = stack.invoke("put", request)
        assert {secret["version"] for secret in again.body["secrets"]} == {1}
        assert stack.done("get", prefix=prefix, format="json") == dict.fromkeys(names, "s")
        assert stack.verify(names[0]) == stack.verify(names[39]) == {}
        # The next put continues the chain, with or without its head.
        assert stack.put(names[39], "next")["version"] == 2
        assert stack.verify(names[39]) == {}
        assert [event["version"] for event in stack.history(names[39])] == [2, 1]
        if not crashed(first):
            break
    assert point == 4


@pytest.mark.parametrize("versions", [1, 120])
def test_a_killed_delete_or_restore_can_be_repeated(
    stack: Stack, crashing: Crash, name: str, versions: int
) -> None:
    values = {number: f"value {number}" for number in range(1, versions + 1)}
    for value in values.values():
        stack.put(name, value)
    rows = stack.versions_of(name)
    everything = list(values)

    def check_values(live: list[int]) -> None:
        for version in {1, versions} & set(live):
            assert stack.get(name, version=version)["secret"] == values[version]
        if live:
            assert stack.get(name)["version"] == max(live)

    crashes = {"delete": 0, "restore": 0}
    turns: list[tuple[str, tuple[list[int], list[int]]]] = [
        ("delete", ([], everything)),
        ("restore", (everything, [])),
    ]
    for verb, state in turns:
        for point in crash_points():
            first = crashing(verb, point, {"name": name})
            live, kept = places(stack, name)
            assert sorted(live + kept) == everything, (verb, point)
            # The newest version is deleted last and restored first.
            assert not live or max(live) == versions
            check_values(live)
            # Repeats the request. The opposite request then prepares the next turn.
            again = stack.invoke(verb, {"name": name})
            done_before = (live, sorted(kept)) == state
            assert again.code == "OK" or (verb == "restore" and done_before), again
            assert places(stack, name) == state
            assert stack.verify(name) == {}
            if not crashed(first):
                break
            crashes[verb] += 1
            opposite = {"delete": "restore", "restore": "delete"}[verb]
            stack.done(opposite, name=name)
        if verb == "delete":
            assert stack.invoke("get", {"name": name}).code == "NotFound"
    assert stack.versions_of(name) == rows
    check_values(everything)
    # Each transaction writes up to 49 versions and has two crash points.
    transactions = -(-versions // 49)
    assert crashes == {"delete": 2 * transactions, "restore": 2 * transactions}
    operations = [
        event["operation"]
        for event in stack.history(name)
        for _ in event.get("versions", [event.get("version")])
    ]
    assert operations.count("put") == versions
    assert operations.count("delete") == operations.count("restore")


def test_a_killed_forced_delete_can_be_repeated(stack: Stack, crashing: Crash, name: str) -> None:
    for point in crash_points():
        secret_name = f"{name}/{point}"
        for number in range(3):
            stack.put(secret_name, f"value {number}")
        stack.done("policy", policy="put", name=secret_name, days=1)
        stack.done("delete", name=secret_name, version=2)
        first = crashing("delete", point, {"name": secret_name, "force": True})
        live, kept = places(stack, secret_name)
        assert not set(live) & set(kept)
        again = stack.invoke("delete", {"name": secret_name, "force": True})
        assert again.code == ("OK" if live or kept else "NotFound")
        assert places(stack, secret_name) == ([], [])
        assert stack.invoke("policy", {"policy": "get", "name": secret_name}).code == "NotFound"
        assert stack.verify(secret_name) == {}
        if not crashed(first):
            break
    # The deleted version, the live versions and the policy.
    assert point == 6


def test_a_killed_rewrap_can_be_repeated(
    stack: Stack, crashing: Crash, kms: Any, name: str
) -> None:
    """Each version, live or deleted, is written once, and opens after every crash."""
    for number in range(1, 4):
        stack.put(name, f"value {number}", context={"a": "b"})
    stack.done("delete", name=name, version=2)
    for point in crash_points():
        kms.rotate_key_on_demand(KeyId=stack.key_arn)
        before = wrappings(stack, name)
        first = crashing("rewrap", point, {"action": "rewrap", "name": name})
        between = wrappings(stack, name)
        again = stack.done("rewrap", action="rewrap", name=name)
        after = wrappings(stack, name)
        # The repetition leaves alone what was done before the crash, and does the rest.
        assert all(between[key] in (before[key], after[key]) for key in before)
        assert all(before[key] != after[key] for key in before)
        assert again["changed"] == sum(between[key] == before[key] for key in before)
        for version in (1, 3):
            got = stack.get(name, version=version, context={"a": "b"})
            assert got["secret"] == f"value {version}"
        if not crashed(first):
            break
    assert point == 6
    stack.done("restore", name=name, version=2)
    assert stack.get(name, version=2, context={"a": "b"})["secret"] == "value 2"


def wrappings(stack: Stack, name: str) -> dict[str, str]:
    """Returns the wrapped key of each version, live or deleted."""
    live = {row["version"]: row["key"] for row in stack.versions_of(name)}
    kept = {entry["entry"]: entry["row"]["key"] for entry in stack.entries_of(name, "deleted#")}
    return live | kept


def test_a_killed_reseal_can_be_repeated(
    stack: Stack, crashing: Crash, kms: Any, name: str
) -> None:
    writer = Writer(kms, stack.key_arn)
    for point in crash_points():
        secret_name = f"{name}/{point}"
        # Two transactions of up to eight rows each. A row that gets another data key counts twice,
        # because its old form is kept.
        for version in range(1, 11):
            digest = "MD5" if version % 2 else "SHA256"
            stack.rows.put_item(
                Item=writer.row(secret_name, f"v {version}", version=version, digest=digest)
            )
        first = crashing("reseal", point, {"action": "reseal", "name": secret_name})
        sealed = sum("seal" in row for row in stack.versions_of(secret_name))
        assert sealed in (0, 5, 10)
        again = stack.done("reseal", action="reseal", name=secret_name)
        assert (again["changed"], again["skipped"]) == (10 - sealed, sealed)
        for version in range(1, 11):
            assert stack.get(secret_name, version=version)["secret"] == f"v {version}"
        recorded = [v for event in stack.history(secret_name) for v in event.get("versions", [])]
        recorded += [event["version"] for event in stack.history(secret_name) if "version" in event]
        assert sorted(recorded) == list(range(1, 11))
        assert stack.verify(secret_name) == {}
        if not crashed(first):
            break
    assert point == 4


def test_a_killed_renewal_is_done_once(stack: Stack, crashing: Crash, name: str) -> None:
    for point in crash_points():
        secret_name = f"{name}/{point}"
        stack.put(secret_name, "first")
        due = stack.done("policy", policy="put", name=secret_name, days=1)["next_rotation_at"]
        request = {"action": "renew", "name": secret_name, "token": secret_name}
        first = crashing("renew", point, request)
        again = stack.invoke("renew", request)
        assert (again.code, again.body["version"]) == ("OK", 2)
        policy = stack.done("policy", policy="get", name=secret_name)
        assert policy["last_rotated_at"] and policy["next_rotation_at"] >= due
        operations = [event["operation"] for event in stack.history(secret_name)]
        assert operations == ["renew", "policy", "put"]
        assert stack.verify(secret_name) == {}
        if not crashed(first):
            break
    assert point == 2


def test_deployed_functions_have_no_crash_hook(stack: Stack, name: str) -> None:
    functions = client("lambda")
    for verb in VERBS:
        function = stack.functions[verb]
        variables = functions.get_function_configuration(FunctionName=function)["Environment"]
        functions.update_function_configuration(
            FunctionName=function,
            Environment={"Variables": {**variables["Variables"], "COFFER_CRASH_AFTER": "0"}},
        )
        try:
            if verb not in ("restore", "renew"):
                stack.put(name, "s")
            fields = {"secret": "s"} if verb == "put" else {}
            if verb in PACKAGES:
                fields = {"action": verb}
            if verb == "renew":
                stack.done("policy", policy="put", name=name, days=1)
            stack.done(verb, name=name, **fields)
        finally:
            functions.update_function_configuration(FunctionName=function, Environment=variables)
        binary = (ROOT / ".aws-sam/build" / f"{verb.title()}Function/bootstrap").read_bytes()
        assert b"COFFER_TABLE" in binary and b"COFFER_CRASH_AFTER" not in binary
    assert stack.get(name, stage="AWSPREVIOUS")["secret"] == "s"
