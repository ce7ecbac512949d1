"""The record of what was done: who, when and what, in a chain that shows what was done to it."""

from concurrent.futures import ThreadPoolExecutor
from datetime import datetime, timezone

import pytest
from boto3.dynamodb.types import Binary
from conftest import ACCOUNT, NUMBERS, allow, user
from seal import hash_of

WRITERS = 20


def events(stack, name):
    return stack.entries_of(name, "event#")


def test_everything_is_told_newest_first(stack, iam, name):
    caller = user(iam, f"historian-{next(NUMBERS)}", allow("execute-api:Invoke", "*"))
    stack.put(name, "one")
    assert stack.by_http("put", {"name": name, "secret": "two"}, credentials=caller).code == "OK"
    stack.put(name, "three")
    answer = stack.by_http("delete", {"name": name, "version": 2}, credentials=caller)
    assert answer.code == "OK"
    stack.done("delete", name=name)
    stack.by_http("restore", {"name": name}, credentials=caller)
    stack.done("delete", name=name, force=True)
    who = f"arn:aws:iam::{ACCOUNT}:user/{caller_name(iam, caller)}"
    for _, answer in stack.both("list", {"list": "history", "name": name}):
        told = answer.body["events"]
        assert "next" not in answer.body
        assert [(e["operation"], e.get("version", e.get("versions")), e["who"]) for e in told] == [
            ("delete", [1, 2, 3], "direct"),
            ("restore", [1, 2, 3], who),
            ("delete", [1, 3], "direct"),
            ("delete", 2, who),
            ("put", 3, "direct"),
            ("put", 2, who),
            ("put", 1, "direct"),
        ]
        assert [event.get("force") for event in told] == [True] + [None] * 6
        for event in told:
            age = datetime.now(timezone.utc) - datetime.fromisoformat(event["at"])
            assert 0 <= age.total_seconds() < 120
            assert event["request_id"]
        assert set(told[-1]) == {"operation", "version", "at", "who", "request_id"}
    assert stack.verify(name) == {}


def caller_name(iam, credentials):
    return iam.get_access_key_last_used(AccessKeyId=credentials.access_key)["UserName"]


def test_the_request_id_is_the_one_in_the_functions_log(stack, name):
    answer = stack.invoke("put", {"name": name, "secret": "s"})
    assert stack.history(name)[0]["request_id"] in answer.log


def test_a_history_pages(stack, name):
    for number in range(25):
        stack.put(name, f"value {number}")
    for limit in (1, 7, 25, 1000):
        told = stack.pages("list", "events", list="history", name=name, limit=limit)
        assert [event["version"] for event in told] == list(range(25, 0, -1))
    page = stack.done("list", list="history", name=name, limit=25)
    assert "next" not in page
    # A place in another listing is none in this one.
    stack.put(f"{name}/a", "s")
    names = stack.done("list", prefix=name, limit=1)
    answer = stack.invoke("list", {"list": "history", "name": name, "next": names["next"]})
    assert answer.code == "Invalid"


def test_a_name_without_a_history(stack, credstash, name):
    assert credstash("put", name, "theirs")[0] == 0
    for _, answer in stack.both("list", {"list": "history", "name": name}):
        assert answer.body == {"events": []}
    for _, answer in stack.both("list", {"list": "history", "name": name, "verify": True}):
        assert answer.body == {"name": name, "whole": True, "entries": 0}
    for more in ({}, {"verify": True}):
        for _, answer in stack.both("list", {"list": "history", "name": f"{name}/none", **more}):
            assert answer.code == "NotFound"


def test_an_entry_is_hashed_as_the_docs_say(stack, name):
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


def test_retention_is_the_stacks(stack, name):
    stack.put(name, "s")
    (entry,) = events(stack, name)
    kept = int(entry["ttl"]) - datetime.fromisoformat(entry["at"]).timestamp()
    assert kept == pytest.approx(365 * 24 * 3600, abs=5)


def test_twenty_writers_make_one_chain(stack, name):
    def write(number):
        door = stack.invoke if number % 2 else stack.by_http
        return [door("put", {"name": name, "secret": f"{number} {turn}"}) for turn in range(5)]

    with ThreadPoolExecutor(WRITERS) as pool:
        answers = [answer for each in pool.map(write, range(WRITERS)) for answer in each]
    assert {answer.code for answer in answers} == {"OK"}
    versions = sorted(answer.body["version"] for answer in answers)
    assert versions == list(range(1, 5 * WRITERS + 1))
    told = stack.history(name)
    assert sorted(event["version"] for event in told) == versions
    assert stack.verify(name) == {}
    previous = None
    for number, entry in enumerate(events(stack, name), 1):
        assert entry["entry"] == f"event#{number:019}"
        assert hash_of(entry) == bytes(entry["hash"].value)
        assert previous is None or bytes(entry["previous"].value) == previous
        previous = bytes(entry["hash"].value)


def test_a_chain_is_whole_while_it_is_written(stack, name):
    stack.put(name, "s")

    def write(number):
        return stack.invoke("put", {"name": name, "secret": str(number)}).code

    with ThreadPoolExecutor(4) as pool:
        writes = pool.map(write, range(60))
        checks = [stack.verify(name) for _ in range(15)]
        assert set(writes) == {"OK"}
    assert checks == [{}] * 15


@pytest.fixture
def chain(stack, name):
    """Ten events, and what puts the ledger back as it was."""
    for number in range(10):
        stack.put(name, f"value {number}")
    return name, stack.entries_of(name)


def key(number):
    return f"event#{number:019}"


@pytest.mark.parametrize("number", [1, 5, 10])
def test_an_edited_entry_is_named(stack, chain, number):
    name, entries = chain
    entry = next(entry for entry in entries if entry["entry"] == key(number))
    for change in ({"who": "somebody else"}, {"versions": {"77"}}, {"at": "2026-01-01T00:00:00Z"},
                   {"ttl": 1}, {"hash": Binary(b"x" * 32)}, {"previous": Binary(b"x" * 32)}):
        stack.entries.put_item(Item={**entry, **change})
        assert stack.verify(name) == {key(number): "altered"}, change
    # Even one whose hash was made anew.
    forged = {**entry, "who": "somebody else"}
    stack.entries.put_item(Item={**forged, "hash": Binary(hash_of(forged))})
    assert stack.verify(name) == {key(number): "altered"}
    stack.entries.put_item(Item=entry)
    assert stack.verify(name) == {}


@pytest.mark.parametrize("number", [1, 5, 10])
def test_a_removed_entry_is_named(stack, chain, number):
    name, entries = chain
    stack.entries.delete_item(Key={"name": name, "entry": key(number)})
    answer = stack.by_http("list", {"list": "history", "name": name, "verify": True})
    assert answer.body == {
        "name": name,
        "whole": False,
        "entries": 9,
        "broken": [{"entry": key(number), "fault": "missing"}],
    }
    # What is put afterwards neither hides it nor trips over it.
    assert stack.put(name, "after")["version"] == 11
    assert stack.verify(name) == {key(number): "missing"}


def test_the_last_entries_and_the_head_are_missed(stack, chain):
    name, _ = chain
    for number in (9, 10):
        stack.entries.delete_item(Key={"name": name, "entry": key(number)})
    assert stack.verify(name) == {key(9): "missing", key(10): "missing"}
    stack.entries.delete_item(Key={"name": name, "entry": "head"})
    assert stack.verify(name) == {"head": "missing"}


def test_what_the_head_tells_is_held_by_its_entry(stack, chain):
    name, entries = chain
    (head,) = [entry for entry in entries if entry["entry"] == "head"]
    for change in ({"highest": "9" * 19}, {"state": "anew"}, {"previous_ttl": 1}):
        stack.entries.put_item(Item={**head, **change})
        assert stack.verify(name) == {"head": "altered"}, change


def test_an_entry_that_was_added_is_named(stack, chain):
    name, entries = chain
    entry = next(entry for entry in entries if entry["entry"] == key(5))
    forged = {**entry, "who": "somebody else", "force": None}
    del forged["hash"]
    stack.entries.put_item(Item=forged)
    assert stack.verify(name) == {key(5): "altered"}
    stack.entries.put_item(Item=entry)
    for place in ("event#+000000000000000003", "event#x"):
        stack.entries.put_item(Item={**entry, "entry": place})
        assert stack.verify(name) == {place: "altered"}
        stack.entries.delete_item(Key={"name": name, "entry": place})


def test_a_head_that_is_gone_is_missed_behind_a_bundle_too(stack, name):
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


def test_entries_that_changed_places_are_named(stack, chain):
    name, entries = chain
    third, seventh = (e for e in entries if e["entry"] in (key(3), key(7)))
    stack.entries.put_item(Item={**third, "entry": key(7)})
    stack.entries.put_item(Item={**seventh, "entry": key(3)})
    assert stack.verify(name) == {key(3): "altered", key(7): "altered"}


def test_an_entry_of_another_name_is_named(stack, chain, name):
    stack.put(f"{name}/other", "s")
    (foreign,) = events(stack, f"{name}/other")
    stack.entries.put_item(Item={**foreign, "name": name})
    assert stack.verify(name) == {key(1): "altered"}


def test_what_cannot_be_read_is_not_written_on(stack, chain):
    name, _ = chain
    for place in ("head", key(10)):
        stack.entries.put_item(Item={"name": name, "entry": place})
    answer = stack.invoke("put", {"name": name, "secret": "s"})
    assert answer.code == "Integrity" and "verify" in answer.message
    assert '"level":"ERROR"' in answer.log
    assert len(stack.versions_of(name)) == 10


def test_a_caller_reads_the_history_that_the_path_in_its_policy_covers(stack, caller, name):
    stack.put(f"{name}/a", "s")
    reader = caller(f"GET/history/{name}/*")
    told = stack.by_http("list", {"list": "history", "name": f"{name}/a"}, credentials=reader)
    assert [event["version"] for event in told.body["events"]] == [1]
    for path, query in (
        ("/history/other", ""),
        (f"/versions/{name}/a", ""),
        ("/names", f"list=history&name={name}/a"),
    ):
        assert stack.http("GET", path, query=query, credentials=reader).status == 403
    # The route says what is asked for, not the query.
    lister = caller("GET/names", f"GET/versions/{name}/*")
    for path, query in (("/names", "list=history"), (f"/versions/{name}/a", "list=history")):
        answer = stack.http("GET", path, query=query, credentials=lister)
        assert answer.code == "Invalid", answer


def test_a_forged_request_context_forges_a_name_in_the_record_and_nothing_else(stack, name):
    forged = {"iam": {"userArn": "arn:aws:iam::1:user/forged"}}
    event = {
        "version": "2.0",
        "routeKey": "PUT /secrets/{name+}",
        "rawPath": f"/secrets/{name}",
        "requestContext": {"authorizer": forged, "http": {"method": "PUT"}},
        "pathParameters": {"name": name},
        "body": '{"secret": "s"}',
    }
    assert stack.invoke("put", event).body["statusCode"] == 200
    assert stack.history(name)[0]["who"] == "arn:aws:iam::1:user/forged"


def test_a_delete_says_until_when_it_can_be_undone(stack, name):
    stack.put(name, "s")
    for _, answer in stack.both("get", {"name": f"{name}/never"}):
        assert answer.code == "NotFound" and "history" in answer.message
    until = stack.done("delete", name=name, recovery_window_in_days=7)["recoverable_until"]
    for _, answer in stack.both("list", {"list": "history", "name": name}):
        delete, put = answer.body["events"]
        assert (delete["operation"], delete["recoverable_until"]) == ("delete", until)
        assert "recoverable_until" not in put
    # The route of the history has a permission of its own: no other one tells of the delete.
    never = stack.invoke("list", {"list": "versions", "name": f"{name}/never"})
    for _, answer in stack.both("list", {"list": "versions", "name": name}):
        assert (answer.code, answer.message) == (never.code, never.message)
        assert answer.code == "NotFound" and "history" in answer.message
    assert stack.verify(name) == {}
    stack.done("restore", name=name)
    assert len(stack.done("list", list="versions", name=name)["versions"]) == 1


def test_no_event_ends_before_those_it_follows(stack, chain):
    """Where the retention was lowered, a removed entry that should still be there is named."""
    name, entries = chain
    (head,) = [entry for entry in entries if entry["entry"] == "head"]
    last = next(entry for entry in entries if entry["entry"] == key(10))
    # As if the stack had kept events for ten years until now.
    later = int(last["ttl"]) + 9 * 365 * 24 * 3600
    longer = {**last, "ttl": later}
    longer["hash"] = Binary(hash_of(longer))
    stack.entries.put_item(Item=longer)
    stack.entries.put_item(
        Item={**head, "previous": longer["hash"], "previous_ttl": later}
    )
    assert stack.verify(name) == {}
    stack.put(name, "after")
    added = next(entry for entry in stack.entries_of(name) if entry["entry"] == key(11))
    assert int(added["ttl"]) == later and int(added["previous_ttl"]) == later
    assert stack.verify(name) == {}
