"""Notifications on the event bus: expiring versions and every change, without values."""

import base64
import json
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from conftest import ACCOUNT, NUMBERS, REGION, Stack, client

DAY = 24 * 60 * 60

Notifications = list[dict[str, Any]]
# Waits until a condition on the notifications holds, and returns all notifications.
Bus = Callable[[Callable[[Notifications], bool]], Notifications]


@pytest.fixture(scope="module")
def bus() -> Iterator[Bus]:
    """Collects Coffer's notifications in a queue, with a rule like an operator's."""
    number = next(NUMBERS)
    queues, events = client("sqs"), client("events")
    url = queues.create_queue(QueueName=f"events-{number}")["QueueUrl"]
    rule = f"coffer-{number}"
    events.put_rule(Name=rule, EventPattern=json.dumps({"source": ["coffer"]}))
    target = f"arn:aws:sqs:{REGION}:{ACCOUNT}:events-{number}"
    events.put_targets(Rule=rule, Targets=[{"Id": "queue", "Arn": target}])
    seen: Notifications = []

    def until(enough: Callable[[Notifications], bool], seconds: float = 60) -> Notifications:
        """Waits until `enough(seen)`, and returns every notification so far."""
        deadline = time.monotonic() + seconds
        while not enough(seen):
            assert time.monotonic() < deadline, "the notifications did not arrive"
            received = queues.receive_message(
                QueueUrl=url, MaxNumberOfMessages=10, WaitTimeSeconds=1
            )
            for message in received.get("Messages", []):
                seen.append(json.loads(message["Body"]))
                queues.delete_message(QueueUrl=url, ReceiptHandle=message["ReceiptHandle"])
        return seen

    yield until
    events.remove_targets(Rule=rule, Ids=["queue"])
    events.delete_rule(Name=rule)
    queues.delete_queue(QueueUrl=url)


def about(seen: Notifications, name: str, kind: str) -> list[dict[str, Any]]:
    """Returns the details of the notifications of this type about a secret."""
    return [
        notification["detail"]
        for notification in seen
        if notification["detail-type"] == kind and notification["detail"]["name"] == name
    ]


def test_every_change_sends_a_notification(stack: Stack, bus: Bus, name: str) -> None:
    canary = "canary-value-on-the-bus"
    stack.put(name, canary, comment="c", context={"app": "web"})
    stack.put(name, canary)
    stack.done("put", prefix=name, secrets={f"{name}/a": canary, f"{name}/b": canary})
    stack.done("delete", name=name)
    stack.done("restore", name=name)
    stack.done("delete", name=name, version=1, force=True)
    changed = "Coffer Secret Changed"
    seen = bus(lambda seen: len(about(seen, name, changed)) >= 5)
    # Each is delivered at least once. Duplicates have the same entry.
    by_entry = {detail["entry"]: detail for detail in about(seen, name, changed)}
    details = [by_entry[entry] for entry in sorted(by_entry)]
    assert [(detail["operation"], sorted(detail["versions"])) for detail in details] == [
        ("put", ["1"]),
        ("put", ["2"]),
        ("delete", ["1", "2"]),
        ("restore", ["1", "2"]),
        ("delete", ["1"]),
    ]
    assert all(about(seen, f"{name}/{suffix}", changed) for suffix in "ab")
    keys = {"name", "operation", "versions", "at", "request_id", "entry", "hash"}
    assert all(set(detail) == keys for detail in details)
    entries = {entry["entry"]: entry for entry in stack.entries_of(name, "event#")}
    for detail in details:
        entry = entries[detail["entry"]]
        assert base64.b64decode(detail["hash"]) == bytes(entry["hash"].value)
        assert (detail["at"], detail["request_id"]) == (entry["at"], entry["request_id"])
    rows = stack.versions_of(name) + stack.versions_of(f"{name}/a")
    text = json.dumps(seen)
    assert canary not in text
    assert not any(row[field] in text for row in rows for field in ("key", "contents", "hmac"))


def test_an_expiring_version_sends_one_notification(stack: Stack, bus: Bus, name: str) -> None:
    stack.put(f"{name}/soon", "s", ttl=6 * DAY)
    stack.put(f"{name}/soon", "s", ttl=5 * DAY)
    stack.put(f"{name}/late", "s", ttl=8 * DAY)
    stack.put(f"{name}/never", "s")
    stack.put(f"{name}/past", "s", ttl=1)
    end = int(stack.row(f"{name}/past")["expires_at"])
    while time.time() <= end:
        time.sleep(0.1)
    # Runs twice, because EventBridge may deliver a request twice.
    first = stack.done("remind")
    assert first["notices"] >= 2
    assert stack.done("remind") == {"notices": 0}
    assert all(stack.entries_of(f"{name}/{suffix}", "notice#") == [] for suffix in ("late", "past"))
    expiring = "Coffer Secret Expiring"
    seen = bus(lambda seen: len(about(seen, f"{name}/soon", expiring)) >= 2)
    by_version = {detail["version"]: detail for detail in about(seen, f"{name}/soon", expiring)}
    assert set(by_version) == {"1", "2"}
    for version, days in (("1", 6), ("2", 5)):
        left = datetime.fromisoformat(by_version[version]["expires_at"]) - datetime.now(UTC)
        assert left == pytest.approx(timedelta(days=days), abs=timedelta(minutes=2))
        assert set(by_version[version]) == {"name", "version", "expires_at"}
    # A later notice on the same stream: once it arrives, all earlier ones have arrived.
    stack.put(f"{name}/mark", "s", ttl=DAY)
    assert stack.done("remind")["notices"] == 1
    seen = bus(lambda seen: bool(about(seen, f"{name}/mark", expiring)))
    names = {f"{name}/{suffix}" for suffix in ("late", "never", "past")}
    assert not any(
        notification["detail"]["name"] in names
        for notification in seen
        if notification["detail-type"] == expiring
    )
    assert len(about(seen, f"{name}/soon", expiring)) == 2


def test_a_version_key_of_maximum_length_gets_a_notice(stack: Stack, name: str) -> None:
    stack.put(name, "s", ttl=DAY)
    stack.rows.put_item(Item={**stack.row(name), "version": "v" * 1024})
    assert stack.done("remind")["notices"] >= 2
    assert len(stack.entries_of(name, "notice#")) == 2


def test_many_expiring_versions_each_get_one_notice(stack: Stack, name: str) -> None:
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


def test_the_schedule_runs_the_remind_function(stack: Stack, name: str) -> None:
    """Changes the stack's own schedule to every minute for this test."""
    scheduler = client("scheduler")
    function = f"arn:aws:lambda:{REGION}:{ACCOUNT}:function:{stack.functions['remind']}"
    schedules = [
        scheduler.get_schedule(Name=summary["Name"], GroupName=summary.get("GroupName", "default"))
        for summary in scheduler.list_schedules()["Schedules"]
    ]
    (schedule,) = [found for found in schedules if found["Target"]["Arn"] == function]
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


def test_rows_with_reserved_names_do_not_stop_reminders(stack: Stack, name: str) -> None:
    """Other clients can write such rows. The function's role cannot write notices for them."""
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
            response = stack.invoke(verb, {"name": "/token/x"})
            assert response.code == "Invalid" and "reserved" in response.message
    finally:
        for reserved in ("/policies", "/token/x", "/rotation/x"):
            stack.rows.delete_item(Key={"name": reserved, "version": f"{1:019}"})
