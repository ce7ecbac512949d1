"""The functions killed at every write. What was begun is finished by asking again, and after it
every version is in exactly one place, opens, and is told of once."""

import io
import subprocess
import zipfile

import pytest
from conftest import ROOT, client
from legacy import Writer

VERBS = ("put", "delete", "restore", "rewrap", "reseal", "renew")
# What they are built from, where that is not called as they are.
PACKAGES = {"rewrap": "rotate", "reseal": "rotate", "renew": "rotate"}
# More points than any of these requests has.
MOST = 60


@pytest.fixture(scope="module")
def crashing(stack, tmp_path_factory):
    """Functions like the deployed ones, with their roles and settings, built with the hook that
    ends the process at a chosen point: before or after any write."""
    build = ["cargo", "build", "--quiet", "--features", "coffer/crash"]
    packages = {PACKAGES.get(verb, verb) for verb in VERBS}
    subprocess.run(build + [f"--package={each}" for each in packages], cwd=ROOT, check=True)
    functions = client("lambda")

    def function(verb):
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

    settings = {verb: function(verb) for verb in VERBS}

    def call(verb, points, request):
        """Calls the function, which ends at the write after so many points."""
        variables = {**settings[verb], "COFFER_CRASH_AFTER": str(points)}
        functions.update_function_configuration(
            FunctionName=f"crashing-{verb}", Environment={"Variables": variables}
        )
        return stack.call(f"crashing-{verb}", request)

    yield call
    for verb in VERBS:
        functions.delete_function(FunctionName=f"crashing-{verb}")


def points():
    """Each point in turn, until a call gets past all there are."""
    for point in range(MOST):
        yield point
    raise AssertionError("the call never ended")


def crashed(answer):
    if answer.code == "OK":
        return False
    # Not one of Coffer's own errors: the process is gone.
    assert answer.code not in ("Unavailable", "Exists", "NotFound", "Invalid"), answer
    return True


def places(stack, name):
    """Where each version is: live, or in the ledger."""
    live = [int(row["version"]) for row in stack.versions_of(name)]
    kept = [int(entry["row"]["version"]) for entry in stack.entries_of(name, "deleted#")]
    return live, kept


def test_a_put_with_a_token_is_done_once_wherever_it_is_killed(stack, crashing, name):
    for point in points():
        each = f"{name}/{point}"
        request = {"name": each, "secret": "s", "token": each}
        first = crashing("put", point, request)
        again = stack.invoke("put", request)
        assert (again.code, again.body["version"]) == ("OK", 1)
        assert stack.invoke("put", request).body == again.body
        assert places(stack, each) == ([1], [])
        assert stack.get(each)["secret"] == "s"
        assert [event["version"] for event in stack.history(each)] == [1]
        assert stack.verify(each) == {}
        if not crashed(first):
            assert first.body == again.body
            break
    assert point == 2


def test_a_bundle_is_whole_or_not_there_wherever_it_is_killed(stack, crashing, name):
    """Its heads follow in a transaction of their own: 40 names, as many as do not fit in one."""
    for point in points():
        prefix = f"{name}/{point}"
        names = [f"{prefix}/{number:02}" for number in range(40)]
        request = {"prefix": prefix, "secrets": dict.fromkeys(names, "s"), "token": prefix}
        first = crashing("put", point, request)
        assert len(stack.done("get", prefix=prefix)["secrets"]) in (0, 40)
        again = stack.invoke("put", request)
        assert {each["version"] for each in again.body["secrets"]} == {1}
        assert stack.done("get", prefix=prefix, format="json") == dict.fromkeys(names, "s")
        assert stack.verify(names[0]) == stack.verify(names[39]) == {}
        # The next one goes on from there, head or no head.
        assert stack.put(names[39], "next")["version"] == 2
        assert stack.verify(names[39]) == {}
        assert [event["version"] for event in stack.history(names[39])] == [2, 1]
        if not crashed(first):
            break
    assert point == 4


@pytest.mark.parametrize("versions", [1, 120])
def test_delete_and_restore_go_on_wherever_they_are_killed(stack, crashing, name, versions):
    values = {number: f"value {number}" for number in range(1, versions + 1)}
    for value in values.values():
        stack.put(name, value)
    rows = stack.versions_of(name)
    everything = list(values)

    def opens(live):
        for version in {1, versions} & set(live):
            assert stack.get(name, version=version)["secret"] == values[version]
        if live:
            assert stack.get(name)["version"] == max(live)

    crashes = {"delete": 0, "restore": 0}
    for verb, state in (("delete", ([], everything)), ("restore", (everything, []))):
        for point in points():
            first = crashing(verb, point, {"name": name})
            live, kept = places(stack, name)
            assert sorted(live + kept) == everything, (verb, point)
            # The newest version is the last to go and the first to come back.
            assert not live or max(live) == versions
            opens(live)
            # Asked again, and the other way round, to begin the next turn as this one.
            again = stack.invoke(verb, {"name": name})
            done_before = places_are(live, kept, state)
            assert again.code == "OK" or (verb == "restore" and done_before), again
            assert places(stack, name) == state
            assert stack.verify(name) == {}
            if not crashed(first):
                break
            crashes[verb] += 1
            other = {"delete": "restore", "restore": "delete"}[verb]
            stack.done(other, name=name)
        if verb == "delete":
            assert stack.invoke("get", {"name": name}).code == "NotFound"
    assert stack.versions_of(name) == rows
    opens(everything)
    # Two points for each transaction, of up to 49 versions.
    transactions = -(-versions // 49)
    assert crashes == {"delete": 2 * transactions, "restore": 2 * transactions}
    told = [
        (event["operation"], version)
        for event in stack.history(name)
        for version in event.get("versions", [event.get("version")])
    ]
    puts = sum(operation == "put" for operation, _ in told)
    deletes = sum(operation == "delete" for operation, _ in told)
    restores = sum(operation == "restore" for operation, _ in told)
    assert puts == versions and deletes == restores


def places_are(live, kept, state):
    return (live, sorted(kept)) == state


def test_a_forced_delete_goes_on_wherever_it_is_killed(stack, crashing, name):
    for point in points():
        each = f"{name}/{point}"
        for number in range(3):
            stack.put(each, f"value {number}")
        stack.done("policy", policy="put", name=each, days=1)
        stack.done("delete", name=each, version=2)
        first = crashing("delete", point, {"name": each, "force": True})
        live, kept = places(stack, each)
        assert not set(live) & set(kept)
        again = stack.invoke("delete", {"name": each, "force": True})
        assert again.code == ("OK" if live or kept else "NotFound")
        assert places(stack, each) == ([], [])
        assert stack.invoke("policy", {"policy": "get", "name": each}).code == "NotFound"
        assert stack.verify(each) == {}
        if not crashed(first):
            break
    # What awaited recovery, what was live, and the policy.
    assert point == 6


def test_a_rewrap_goes_on_wherever_it_is_killed(stack, crashing, kms, name):
    """Each version is written once, live or deleted, and opens at every point."""
    for number in range(1, 4):
        stack.put(name, f"value {number}", context={"a": "b"})
    stack.done("delete", name=name, version=2)
    for point in points():
        kms.rotate_key_on_demand(KeyId=stack.key_arn)
        before = wrappings(stack, name)
        first = crashing("rewrap", point, {"action": "rewrap", "name": name})
        between = wrappings(stack, name)
        again = stack.done("rewrap", action="rewrap", name=name)
        after = wrappings(stack, name)
        # What was done before the end is left as it is, and the rest is done.
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


def wrappings(stack, name):
    live = {row["version"]: row["key"] for row in stack.versions_of(name)}
    kept = {e["entry"]: e["row"]["key"] for e in stack.entries_of(name, "deleted#")}
    return live | kept


def test_a_reseal_goes_on_wherever_it_is_killed(stack, crashing, kms, name):
    writer = Writer(kms, stack.key_arn)
    for point in points():
        each = f"{name}/{point}"
        # Two transactions: of eight rows each, where one that is sealed under another data key
        # counts twice, for its old form is kept.
        for version in range(1, 11):
            digest = "MD5" if version % 2 else "SHA256"
            stack.rows.put_item(Item=writer.row(each, f"v {version}", version=version, digest=digest))
        first = crashing("reseal", point, {"action": "reseal", "name": each})
        sealed = sum("seal" in row for row in stack.versions_of(each))
        assert sealed in (0, 5, 10)
        again = stack.done("reseal", action="reseal", name=each)
        assert (again["changed"], again["skipped"]) == (10 - sealed, sealed)
        for version in range(1, 11):
            assert stack.get(each, version=version)["secret"] == f"v {version}"
        told = [v for event in stack.history(each) for v in event.get("versions", [])]
        told += [event["version"] for event in stack.history(each) if "version" in event]
        assert sorted(told) == list(range(1, 11))
        assert stack.verify(each) == {}
        if not crashed(first):
            break
    assert point == 4


def test_a_renewal_is_done_once_wherever_it_is_killed(stack, crashing, name):
    for point in points():
        each = f"{name}/{point}"
        stack.put(each, "first")
        due = stack.done("policy", policy="put", name=each, days=1)["next_rotation_at"]
        request = {"action": "renew", "name": each, "token": each}
        first = crashing("renew", point, request)
        again = stack.invoke("renew", request)
        assert (again.code, again.body["version"]) == ("OK", 2)
        policy = stack.done("policy", policy="get", name=each)
        assert policy["last_rotated_at"] and policy["next_rotation_at"] >= due
        told = [event["operation"] for event in stack.history(each)]
        assert told == ["renew", "policy", "put"]
        assert stack.verify(each) == {}
        if not crashed(first):
            break
    assert point == 2


def test_what_is_deployed_has_no_such_hook(stack, name):
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
            more = {"secret": "s"} if verb == "put" else {}
            if verb in PACKAGES:
                more = {"action": verb}
            if verb == "renew":
                stack.done("policy", policy="put", name=name, days=1)
            stack.done(verb, name=name, **more)
        finally:
            functions.update_function_configuration(FunctionName=function, Environment=variables)
        binary = (ROOT / ".aws-sam/build" / f"{verb.title()}Function/bootstrap").read_bytes()
        assert b"COFFER_TABLE" in binary and b"COFFER_CRASH_AFTER" not in binary
    assert stack.get(name, stage="AWSPREVIOUS")["secret"] == "s"
