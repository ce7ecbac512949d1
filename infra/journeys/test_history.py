"""History: who did what and when, in a chain of events that shows tampering."""

from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime
from typing import Any

import pytest
from boto3.dynamodb.types import Binary

from conftest import (
    ACCOUNT,
    NUMBERS,
    CommandLine,
    Credentials,
    MakeCaller,
    Response,
    Stack,
    allow,
    user,
)
from seal import hash_of

WRITERS = 20

# A name and the items that the ledger has for it.
Chain = tuple[str, list[dict[str, Any]]]


def events(stack: Stack, name: str) -> list[Any]:
    """Returns the items of a secret's events, oldest first."""
    return stack.entries_of(name, "event#")


def test_history_is_listed_newest_first(stack: Stack, iam: Any, name: str) -> None:
    caller = user(iam, f"historian-{next(NUMBERS)}", allow("execute-api:Invoke", "*"))
    stack.put(name, "one")
    assert stack.by_http("put", {"name": name, "secret": "two"}, credentials=caller).code == "OK"
    stack.put(name, "three")
    response = stack.by_http("delete", {"name": name, "version": 2}, credentials=caller)
    assert response.code == "OK"
    stack.done("delete", name=name)
    stack.by_http("restore", {"name": name}, credentials=caller)
    stack.done("delete", name=name, force=True)
    who = f"arn:aws:iam::{ACCOUNT}:user/{caller_name(iam, caller)}"
    for _, response in stack.both("list", {"list": "history", "name": name}):
        listed = response.body["events"]
        assert "next" not in response.body
        assert [
            (event["operation"], event.get("version", event.get("versions")), event["who"])
            for event in listed
        ] == [
            ("delete", [1, 2, 3], "direct"),
            ("restore", [1, 2, 3], who),
            ("delete", [1, 3], "direct"),
            ("delete", 2, who),
            ("put", 3, "direct"),
            ("put", 2, who),
            ("put", 1, "direct"),
        ]
        assert [event.get("force") for event in listed] == [True] + [None] * 6
        for event in listed:
            age = datetime.now(UTC) - datetime.fromisoformat(event["at"])
            assert 0 <= age.total_seconds() < 120
            assert event["request_id"]
        assert set(listed[-1]) == {"operation", "version", "at", "who", "request_id"}
    assert stack.verify(name) == {}


def caller_name(iam: Any, credentials: Credentials) -> str:
    """Returns the name of the user that has these credentials."""
    return iam.get_access_key_last_used(AccessKeyId=credentials.access_key)["UserName"]


def test_an_event_has_the_request_id_that_the_function_logs(stack: Stack, name: str) -> None:
    response = stack.invoke("put", {"name": name, "secret": "s"})
    assert stack.history(name)[0]["request_id"] in response.log


def test_history_is_paged(stack: Stack, name: str) -> None:
    for number in range(25):
        stack.put(name, f"value {number}")
    for limit in (1, 7, 25, 1000):
        listed = stack.pages("list", "events", list="history", name=name, limit=limit)
        assert [event["version"] for event in listed] == list(range(25, 0, -1))
    page = stack.done("list", list="history", name=name, limit=25)
    assert "next" not in page
    # The cursor of another listing is invalid here.
    stack.put(f"{name}/a", "s")
    names = stack.done("list", prefix=name, limit=1)
    response = stack.invoke("list", {"list": "history", "name": name, "next": names["next"]})
    assert response.code == "Invalid"


def test_a_secret_of_an_old_client_has_an_empty_history(
    stack: Stack, credstash: CommandLine, name: str
) -> None:
    assert credstash("put", name, "theirs")[0] == 0
    for _, response in stack.both("list", {"list": "history", "name": name}):
        assert response.body == {"events": []}
    for _, response in stack.both("list", {"list": "history", "name": name, "verify": True}):
        assert response.body == {"name": name, "whole": True, "entries": 0}
    for fields in ({}, {"verify": True}):
        for _, response in stack.both(
            "list", {"list": "history", "name": f"{name}/none", **fields}
        ):
            assert response.code == "NotFound"


def test_events_are_hashed_as_documented(stack: Stack, name: str) -> None:
    stack.put(name, "one")
    stack.put(name, "two", ttl=60)
    stack.done("delete", name=name, force=True)
    previous = None
    for entry in events(stack, name):
        assert hash_of(entry) == bytes(entry["hash"].value)
        assert previous is None or bytes(entry["previous"].value) == previous
        previous = bytes(entry["hash"].value)
    (head,) = stack.entries_of(name, "head")
    assert bytes(head["previous"].value) == previous


def test_events_are_kept_for_the_retention_of_the_stack(stack: Stack, name: str) -> None:
    stack.put(name, "s")
    (entry,) = events(stack, name)
    kept = int(entry["ttl"]) - datetime.fromisoformat(entry["at"]).timestamp()
    assert kept == pytest.approx(365 * 24 * 3600, abs=5)


def test_twenty_writers_make_one_chain(stack: Stack, name: str) -> None:
    def write(number: int) -> list[Response]:
        send = stack.invoke if number % 2 else stack.by_http
        return [send("put", {"name": name, "secret": f"{number} {turn}"}) for turn in range(5)]

    with ThreadPoolExecutor(WRITERS) as pool:
        responses = [response for turns in pool.map(write, range(WRITERS)) for response in turns]
    assert {response.code for response in responses} == {"OK"}
    versions = sorted(response.body["version"] for response in responses)
    assert versions == list(range(1, 5 * WRITERS + 1))
    listed = stack.history(name)
    assert sorted(event["version"] for event in listed) == versions
    assert stack.verify(name) == {}
    previous = None
    for number, entry in enumerate(events(stack, name), 1):
        assert entry["entry"] == f"event#{number:019}"
        assert hash_of(entry) == bytes(entry["hash"].value)
        assert previous is None or bytes(entry["previous"].value) == previous
        previous = bytes(entry["hash"].value)


def test_a_chain_can_be_verified_while_it_is_written(stack: Stack, name: str) -> None:
    stack.put(name, "s")

    def write(number: int) -> str:
        return stack.invoke("put", {"name": name, "secret": str(number)}).code

    with ThreadPoolExecutor(4) as pool:
        writes = pool.map(write, range(60))
        checks = [stack.verify(name) for _ in range(15)]
        assert set(writes) == {"OK"}
    assert checks == [{}] * 15


@pytest.fixture
def chain(stack: Stack, name: str) -> Chain:
    """Puts ten versions. Returns the name and its items in the ledger."""
    for number in range(10):
        stack.put(name, f"value {number}")
    return name, stack.entries_of(name)


def key(number: int) -> str:
    """Returns the sort key of an event."""
    return f"event#{number:019}"


@pytest.mark.parametrize("number", [1, 5, 10])
def test_an_edited_event_is_reported(stack: Stack, chain: Chain, number: int) -> None:
    name, entries = chain
    entry = next(entry for entry in entries if entry["entry"] == key(number))
    changes: list[dict[str, Any]] = [
        {"who": "somebody else"},
        {"versions": {"77"}},
        {"at": "2026-01-01T00:00:00Z"},
        {"ttl": 1},
        {"hash": Binary(b"x" * 32)},
        {"previous": Binary(b"x" * 32)},
    ]
    for change in changes:
        stack.entries.put_item(Item={**entry, **change})
        assert stack.verify(name) == {key(number): "altered"}, change
    # A recomputed hash does not hide the edit.
    forged = {**entry, "who": "somebody else"}
    stack.entries.put_item(Item={**forged, "hash": Binary(hash_of(forged))})
    assert stack.verify(name) == {key(number): "altered"}
    stack.entries.put_item(Item=entry)
    assert stack.verify(name) == {}


@pytest.mark.parametrize("number", [1, 5, 10])
def test_a_removed_event_is_reported(stack: Stack, chain: Chain, number: int) -> None:
    name, _ = chain
    stack.entries.delete_item(Key={"name": name, "entry": key(number)})
    response = stack.by_http("list", {"list": "history", "name": name, "verify": True})
    assert response.body == {
        "name": name,
        "whole": False,
        "entries": 9,
        "broken": [{"entry": key(number), "fault": "missing"}],
    }
    # A later put succeeds and does not hide the gap.
    assert stack.put(name, "after")["version"] == 11
    assert stack.verify(name) == {key(number): "missing"}


def test_a_removed_end_of_the_chain_and_a_removed_head_are_reported(
    stack: Stack, chain: Chain
) -> None:
    name, _ = chain
    for number in (9, 10):
        stack.entries.delete_item(Key={"name": name, "entry": key(number)})
    assert stack.verify(name) == {key(9): "missing", key(10): "missing"}
    stack.entries.delete_item(Key={"name": name, "entry": "head"})
    assert stack.verify(name) == {"head": "missing"}


def test_an_edited_chain_head_is_reported(stack: Stack, chain: Chain) -> None:
    name, entries = chain
    (head,) = [entry for entry in entries if entry["entry"] == "head"]
    changes: list[dict[str, Any]] = [{"highest": "9" * 19}, {"state": "anew"}, {"previous_ttl": 1}]
    for change in changes:
        stack.entries.put_item(Item={**head, **change})
        assert stack.verify(name) == {"head": "altered"}, change


def test_an_added_event_is_reported(stack: Stack, chain: Chain) -> None:
    name, entries = chain
    entry = next(entry for entry in entries if entry["entry"] == key(5))
    forged = {**entry, "who": "somebody else", "force": None}
    del forged["hash"]
    stack.entries.put_item(Item=forged)
    assert stack.verify(name) == {key(5): "altered"}
    stack.entries.put_item(Item=entry)
    for sort_key in ("event#+000000000000000003", "event#x"):
        stack.entries.put_item(Item={**entry, "entry": sort_key})
        assert stack.verify(name) == {sort_key: "altered"}
        stack.entries.delete_item(Key={"name": name, "entry": sort_key})


def test_an_old_or_removed_head_is_reported_after_a_bundle(stack: Stack, name: str) -> None:
    for number in range(3):
        stack.put(f"{name}/00", f"value {number}")
    (older,) = stack.entries_of(f"{name}/00", "head")
    stack.put(f"{name}/00", "one more")
    stack.done("put", prefix=name, secrets={f"{name}/{n:02}": "s" for n in range(40)})
    assert stack.verify(f"{name}/00") == {}
    stack.entries.put_item(Item=older)
    assert stack.verify(f"{name}/00") == {"head": "altered"}
    stack.entries.delete_item(Key={"name": f"{name}/00", "entry": "head"})
    assert stack.verify(f"{name}/00") == {"head": "missing"}


def test_swapped_events_are_reported(stack: Stack, chain: Chain) -> None:
    name, entries = chain
    third, seventh = (entry for entry in entries if entry["entry"] in (key(3), key(7)))
    stack.entries.put_item(Item={**third, "entry": key(7)})
    stack.entries.put_item(Item={**seventh, "entry": key(3)})
    assert stack.verify(name) == {key(3): "altered", key(7): "altered"}


def test_an_event_of_another_secret_is_reported(stack: Stack, chain: Chain, name: str) -> None:
    stack.put(f"{name}/other", "s")
    (foreign,) = events(stack, f"{name}/other")
    stack.entries.put_item(Item={**foreign, "name": name})
    assert stack.verify(name) == {key(1): "altered"}


def test_a_chain_that_cannot_be_read_is_not_continued(stack: Stack, chain: Chain) -> None:
    name, _ = chain
    for sort_key in ("head", key(10)):
        stack.entries.put_item(Item={"name": name, "entry": sort_key})
    response = stack.invoke("put", {"name": name, "secret": "s"})
    assert response.code == "Integrity" and "verify" in response.message
    assert '"level":"ERROR"' in response.log
    assert len(stack.versions_of(name)) == 10


def test_a_policy_path_limits_which_history_a_caller_reads(
    stack: Stack, caller: MakeCaller, name: str
) -> None:
    stack.put(f"{name}/a", "s")
    reader = caller(f"GET/history/{name}/*")
    response = stack.by_http("list", {"list": "history", "name": f"{name}/a"}, credentials=reader)
    assert [event["version"] for event in response.body["events"]] == [1]
    for path, query in (
        ("/history/other", ""),
        (f"/versions/{name}/a", ""),
        ("/names", f"list=history&name={name}/a"),
    ):
        assert stack.http("GET", path, query=query, credentials=reader).status == 403
    # The route alone selects what is listed. The query cannot.
    lister = caller("GET/names", f"GET/versions/{name}/*")
    for path, query in (("/names", "list=history"), (f"/versions/{name}/a", "list=history")):
        response = stack.http("GET", path, query=query, credentials=lister)
        assert response.code == "Invalid", response


def test_a_forged_request_context_changes_only_the_recorded_caller(stack: Stack, name: str) -> None:
    forged = {"iam": {"userArn": "arn:aws:iam::1:user/forged"}}
    request = {
        "version": "2.0",
        "routeKey": "PUT /secrets/{name+}",
        "rawPath": f"/secrets/{name}",
        "requestContext": {"authorizer": forged, "http": {"method": "PUT"}},
        "pathParameters": {"name": name},
        "body": '{"secret": "s"}',
    }
    assert stack.invoke("put", request).body["statusCode"] == 200
    assert stack.history(name)[0]["who"] == "arn:aws:iam::1:user/forged"


def test_a_delete_event_has_the_end_of_its_recovery_window(stack: Stack, name: str) -> None:
    stack.put(name, "s")
    for _, response in stack.both("get", {"name": f"{name}/never"}):
        assert response.code == "NotFound" and "history" in response.message
    until = stack.done("delete", name=name, recovery_window_in_days=7)["recoverable_until"]
    for _, response in stack.both("list", {"list": "history", "name": name}):
        delete, put = response.body["events"]
        assert (delete["operation"], delete["recoverable_until"]) == ("delete", until)
        assert "recoverable_until" not in put
    # History has a permission of its own, so other routes do not reveal the delete.
    never = stack.invoke("list", {"list": "versions", "name": f"{name}/never"})
    for _, response in stack.both("list", {"list": "versions", "name": name}):
        assert (response.code, response.message) == (never.code, never.message)
        assert response.code == "NotFound" and "history" in response.message
    assert stack.verify(name) == {}
    stack.done("restore", name=name)
    assert len(stack.done("list", list="versions", name=name)["versions"]) == 1


def test_no_event_expires_before_the_events_it_follows(stack: Stack, chain: Chain) -> None:
    """After the retention was lowered, removing an event that should still exist is reported."""
    name, entries = chain
    (head,) = [entry for entry in entries if entry["entry"] == "head"]
    last = next(entry for entry in entries if entry["entry"] == key(10))
    # Simulates a stack that has kept events for ten years until now.
    later = int(last["ttl"]) + 9 * 365 * 24 * 3600
    longer = {**last, "ttl": later}
    longer["hash"] = Binary(hash_of(longer))
    stack.entries.put_item(Item=longer)
    stack.entries.put_item(Item={**head, "previous": longer["hash"], "previous_ttl": later})
    assert stack.verify(name) == {}
    stack.put(name, "after")
    added = next(entry for entry in stack.entries_of(name) if entry["entry"] == key(11))
    assert int(added["ttl"]) == later and int(added["previous_ttl"]) == later
    assert stack.verify(name) == {}
