"""Expiry, told ahead of time, and every change, told on the bus: names and versions, no values."""

import base64
import json
import time
from concurrent.futures import ThreadPoolExecutor
from datetime import datetime, timedelta, timezone

import pytest
from conftest import ACCOUNT, NUMBERS, REGION, client

DAY = 24 * 60 * 60


@pytest.fixture(scope="module")
def bus():
    """A queue that a rule sends Coffer's events to, as an operator would see them."""
    number = next(NUMBERS)
    queues, events = client("sqs"), client("events")
    url = queues.create_queue(QueueName=f"events-{number}")["QueueUrl"]
    rule = f"coffer-{number}"
    events.put_rule(Name=rule, EventPattern=json.dumps({"source": ["coffer"]}))
    target = f"arn:aws:sqs:{REGION}:{ACCOUNT}:events-{number}"
    events.put_targets(Rule=rule, Targets=[{"Id": "queue", "Arn": target}])
    seen = []

    def until(enough, seconds=60):
        """Every event so far, once `enough` of them have come."""
        deadline = time.monotonic() + seconds
        while not enough(seen):
            assert time.monotonic() < deadline, "the events did not come"
            got = queues.receive_message(
                QueueUrl=url, MaxNumberOfMessages=10, WaitTimeSeconds=1
            )
            for message in got.get("Messages", []):
                seen.append(json.loads(message["Body"]))
                queues.delete_message(QueueUrl=url, ReceiptHandle=message["ReceiptHandle"])
        return seen

    yield until
    events.remove_targets(Rule=rule, Ids=["queue"])
    events.delete_rule(Name=rule)
    queues.delete_queue(QueueUrl=url)


def about(seen, name, kind):
    return [e["detail"] for e in seen if e["detail-type"] == kind and e["detail"]["name"] == name]


def test_every_change_is_told_on_the_bus(stack, bus, name):
    canary = "canary-value-on-the-bus"
    stack.put(name, canary, comment="c", context={"app": "web"})
    stack.put(name, canary)
    stack.done("put", prefix=name, secrets={f"{name}/a": canary, f"{name}/b": canary})
    stack.done("delete", name=name)
    stack.done("restore", name=name)
    stack.done("delete", name=name, version=1, force=True)
    changed = "Coffer Secret Changed"
    seen = bus(lambda seen: len(about(seen, name, changed)) >= 5)
    # At least once each: the entry tells which is which.
    told = {event["entry"]: event for event in about(seen, name, changed)}
    told = [told[entry] for entry in sorted(told)]
    assert [(event["operation"], sorted(event["versions"])) for event in told] == [
        ("put", ["1"]),
        ("put", ["2"]),
        ("delete", ["1", "2"]),
        ("restore", ["1", "2"]),
        ("delete", ["1"]),
    ]
    assert all(about(seen, f"{name}/{each}", changed) for each in "ab")
    keys = {"name", "operation", "versions", "at", "request_id", "entry", "hash"}
    assert all(set(event) == keys for event in told)
    entries = {entry["entry"]: entry for entry in stack.entries_of(name, "event#")}
    for event in told:
        entry = entries[event["entry"]]
        assert base64.b64decode(event["hash"]) == bytes(entry["hash"].value)
        assert (event["at"], event["request_id"]) == (entry["at"], entry["request_id"])
    rows = stack.versions_of(name) + stack.versions_of(f"{name}/a")
    text = json.dumps(seen)
    assert canary not in text
    assert not any(row[field] in text for row in rows for field in ("key", "contents", "hmac"))


def test_what_expires_is_told_ahead_of_time_and_once(stack, bus, name):
    stack.put(f"{name}/soon", "s", ttl=6 * DAY)
    stack.put(f"{name}/soon", "s", ttl=5 * DAY)
    stack.put(f"{name}/late", "s", ttl=8 * DAY)
    stack.put(f"{name}/never", "s")
    stack.put(f"{name}/past", "s", ttl=1)
    end = int(stack.row(f"{name}/past")["expires_at"])
    while time.time() <= end:
        time.sleep(0.1)
    # Delivered twice, as EventBridge may do.
    first = stack.done("remind")
    assert first["notices"] >= 2
    assert stack.done("remind") == {"notices": 0}
    assert all(stack.entries_of(f"{name}/{each}", "notice#") == [] for each in ("late", "past"))
    expiring = "Coffer Secret Expiring"
    seen = bus(lambda seen: len(about(seen, f"{name}/soon", expiring)) >= 2)
    told = {event["version"]: event for event in about(seen, f"{name}/soon", expiring)}
    assert set(told) == {"1", "2"}
    for version, days in (("1", 6), ("2", 5)):
        left = datetime.fromisoformat(told[version]["expires_at"]) - datetime.now(timezone.utc)
        assert left == pytest.approx(timedelta(days=days), abs=timedelta(minutes=2))
        assert set(told[version]) == {"name", "version", "expires_at"}
    # A notice after them on the same stream: what would have come has come.
    stack.put(f"{name}/mark", "s", ttl=DAY)
    assert stack.done("remind")["notices"] == 1
    seen = bus(lambda seen: about(seen, f"{name}/mark", expiring))
    names = {f"{name}/{each}" for each in ("late", "never", "past")}
    assert not any(e["detail"]["name"] in names for e in seen if e["detail-type"] == expiring)
    assert len(about(seen, f"{name}/soon", expiring)) == 2


def test_a_version_as_long_as_dynamodb_takes_is_told_too(stack, name):
    stack.put(name, "s", ttl=DAY)
    stack.rows.put_item(Item={**stack.row(name), "version": "v" * 1024})
    assert stack.done("remind")["notices"] >= 2
    assert len(stack.entries_of(name, "notice#")) == 2


def test_many_that_expire_are_all_told(stack, name):
    for start in range(0, 200, 50):
        secrets = [
            {"name": f"{name}/{number:03}", "secret": "s", "ttl": DAY}
            for number in range(start, start + 50)
        ]
        stack.done("put", prefix=name, secrets=secrets)
    with ThreadPoolExecutor(4) as pool:
        notices = list(pool.map(lambda _: stack.done("remind")["notices"], range(4)))
    assert sum(notices) >= 200
    for number in (0, 77, 199):
        assert len(stack.entries_of(f"{name}/{number:03}", "notice#")) == 1
    assert stack.done("remind") == {"notices": 0}


def test_the_schedule_starts_it(stack, name):
    """The stack's own schedule, for the time of this test each minute."""
    scheduler = client("scheduler")
    function = f"arn:aws:lambda:{REGION}:{ACCOUNT}:function:{stack.functions['remind']}"
    schedules = [
        scheduler.get_schedule(Name=each["Name"], GroupName=each.get("GroupName", "default"))
        for each in scheduler.list_schedules()["Schedules"]
    ]
    (schedule,) = [each for each in schedules if each["Target"]["Arn"] == function]
    assert schedule["ScheduleExpression"] == "rate(1 day)"
    settings = {
        field: schedule[field]
        for field in ("Name", "GroupName", "FlexibleTimeWindow", "Target", "State")
        if field in schedule
    }
    stack.put(name, "s", ttl=DAY)
    scheduler.update_schedule(**settings, ScheduleExpression="rate(1 minute)")
    try:
        deadline = time.monotonic() + 150
        while not stack.entries_of(name, "notice#"):
            assert time.monotonic() < deadline, "the schedule did not fire"
            time.sleep(0.5)
    finally:
        scheduler.update_schedule(**settings, ScheduleExpression="rate(1 day)")
    assert stack.done("remind")["notices"] == 0


def test_a_row_under_a_name_of_the_ledgers_stops_nothing(stack, name):
    """Other clients can write such rows. The role may not write notices there."""
    soon = int(time.time()) + DAY
    for reserved in ("/policies", "/token/x", "/rotation/x"):
        row = {"name": reserved, "version": f"{1:019}", "key": "", "contents": "", "hmac": ""}
        stack.rows.put_item(Item={**row, "expires_at": soon})
    try:
        stack.put(name, "s", expires_at=soon)
        assert stack.done("remind")["notices"] >= 1
        assert stack.entries_of(name, "notice#")
        assert not stack.entries_of("/policies", "notice#")
        for verb in ("delete", "restore"):
            answer = stack.invoke(verb, {"name": "/token/x"})
            assert answer.code == "Invalid" and "reserved" in answer.message
    finally:
        for reserved in ("/policies", "/token/x", "/rotation/x"):
            stack.rows.delete_item(Key={"name": reserved, "version": f"{1:019}"})
