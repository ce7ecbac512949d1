"""Rotation policies are put, read, cancelled and validated."""

import json
import string
import time
from datetime import timedelta
from typing import Any
from zoneinfo import ZoneInfo

import pytest

from conftest import Stack
from policies import (
    PRINTABLE,
    RULES,
    edit,
    make_due,
    now,
    operations,
    put_policy,
    reasons,
    timestamp,
)

EACH = {"require_each_included_type": True}
DIGITS = {"exclude_lowercase": True, "exclude_uppercase": True, "exclude_punctuation": True}
# Excluding these leaves one possible value: `A`, repeated.
ALL_BUT_A = PRINTABLE.replace("A", "")


def test_a_policy_can_be_put_read_and_cancelled_by_http_and_by_direct_invoke(
    stack: Stack, name: str
) -> None:
    stack.put(name, "s")
    fields = {"schedule": "cron(0 3 ? * SUN *)", "timezone": "Europe/Paris", "generate": RULES}
    responses = [put for _, put in stack.both("policy", {"policy": "put", "name": name, **fields})]
    responses += [got for _, got in stack.both("policy", {"policy": "get", "name": name})]
    for response in responses:
        assert response.code == "OK", response
        body = dict(response.body)
        due = timestamp(body.pop("next_rotation_at")).astimezone(ZoneInfo("Europe/Paris"))
        assert (due.weekday(), due.hour, due.minute) == (6, 3, 0) and due > now()
        assert body == {"name": name, **fields}
    assert stack.invoke("policy", {"policy": "cancel", "name": name}).body == {"name": name}
    for verb in ("get", "cancel"):
        for origin, response in stack.both("policy", {"policy": verb, "name": name}):
            assert response.code == "NotFound"
            assert response.status == (404 if origin == "http" else None)
    # It can be put again. A put that changes nothing writes no event.
    for _ in range(2):
        put_policy(stack, name, days=1)
    assert operations(stack, name) == ["policy", "cancel", "policy", "put"]
    assert stack.by_http("policy", {"policy": "cancel", "name": name}).status == 200
    assert stack.verify(name) == {}


@pytest.mark.parametrize(
    "fields",
    [
        {},
        {"days": 0},
        {"days": 3651},
        {"days": -1},
        {"days": "many"},
        {"days": 1, "schedule": "rate(1 day)"},
        {"days": 1, "timezone": "UTC"},
        {"schedule": "rate(0 days)"},
        {"schedule": "every day"},
        {"schedule": "cron(0 3 * * *)"},
        {"schedule": "cron(0 3 * * * *)"},
        {"schedule": "cron(0 3 30 2 ? *)"},
        {"schedule": "cron(0 3 1 1 ? 2001)"},
        {"schedule": "at(2030-01-01T00:00:00)"},
        {"schedule": "rate(1 day)", "timezone": "Europe/Paris"},
        {"schedule": "cron(0 3 * * ? *)", "timezone": "Mars/Olympus"},
        {"schedule": "cron(" + "*," * 200 + "* 3 * * ? *)"},
        {"schedule": "cron(0 3 * * ? *)", "timezone": "U" * 257},
        {"days": 1, "generate": {"length": 0}},
        {"days": 1, "generate": {"length": 19, **DIGITS}},
        {"days": 1, "generate": {"exclude_characters": ALL_BUT_A}},
        {"days": 1, "generate": {"exclude_characters": "0" * 257}},
        {"days": 1, "generate": {"exclude_characters": string.digits, **EACH}},
        {"days": 1, "generate": {"template": "{}"}},
        {"days": 1, "generate": {"key": "password"}},
        {"days": 1, "generate": {"template": "[]", "key": "password"}},
        {"days": 1, "generate": {"template": "{", "key": "password"}},
        {"days": 1, "generate": {"template": '{"a":1,"a":2}', "key": "password"}},
        {"days": 1, "generate": {"template": "{}", "key": ""}},
        {"days": 1, "generate": {"template": json.dumps({"a": "x" * 4096}), "key": "password"}},
        {"days": 1, "generate": {"symbols": True}},
        {"days": 1, "context": {"": "x"}},
        {"days": 1, "pl4nted": 1},
    ],
    ids=lambda fields: str(fields)[:80],
)
def test_an_invalid_policy_is_refused(stack: Stack, name: str, fields: dict[str, Any]) -> None:
    stack.put(name, "s")
    for _, response in stack.both("policy", {"policy": "put", "name": name, **fields}):
        assert response.code == "Invalid"
        assert "pl4nted" not in json.dumps(response.body) + response.log
    assert stack.invoke("policy", {"policy": "get", "name": name}).code == "NotFound"
    assert operations(stack, name) == ["put"]


def test_a_policy_requires_an_existing_secret(stack: Stack, name: str) -> None:
    for _, response in stack.both("policy", {"policy": "put", "name": name, "days": 1}):
        assert response.code == "NotFound"
    assert stack.invoke("policy", {"policy": "put", "name": "a//b", "days": 1}).code == "Invalid"
    assert stack.invoke("policy", {"name": name}).code == "Invalid"
    assert stack.entries_of(name) == []


def test_the_next_rotation_time_follows_the_calendar(stack: Stack, name: str) -> None:
    stack.put(name, "s")
    leap = put_policy(stack, name, schedule="cron(0 0 29 2 ? *)")
    due = timestamp(leap["next_rotation_at"])
    assert (due.month, due.day) == (2, 29) and due > now()
    daily = put_policy(stack, name, schedule="cron(30 2 * * ? *)", timezone="America/New_York")
    local = timestamp(daily["next_rotation_at"]).astimezone(ZoneInfo("America/New_York"))
    assert (local.hour, local.minute) == (2, 30)
    assert stack.done("policy", policy="get", name=name) == daily
    # Other rules for the value keep the time; another schedule resets it.
    make_due(stack, name, ago=5)
    other = put_policy(
        stack, name, schedule="cron(30 2 * * ? *)", timezone="America/New_York", generate=RULES
    )
    assert timestamp(other["next_rotation_at"]) < now()
    assert timestamp(put_policy(stack, name, days=3)["next_rotation_at"]) > now() + timedelta(
        days=2
    )


def test_a_policy_that_allows_only_one_value_is_refused_and_renews_nothing(
    stack: Stack, name: str
) -> None:
    """The permission to put policies is not a permission to choose the value of a secret."""
    stack.put(name, "s")
    for _, response in stack.both(
        "policy",
        {"policy": "put", "name": name, "days": 1, "generate": {"exclude_characters": ALL_BUT_A}},
    ):
        assert response.code == "Invalid" and "64 bits" in response.message
    # Simulates a policy from before there was a minimum, or one edited in the ledger.
    put_policy(stack, name, days=1)
    edit(stack, name, exclude_characters=ALL_BUT_A)
    make_due(stack, name)
    assert reasons(stack)[name] == "weak"
    for dry_run in (True, False):
        request = {"action": "renew", "name": name, "dry_run": dry_run}
        for _, response in stack.both("rotate", request):
            assert response.code == "Invalid" and "64 bits" in response.message
    assert stack.get(name)["secret"] == "s"
    # Such a policy can be read and replaced.
    shown = stack.done("policy", policy="get", name=name)
    assert shown["generate"]["exclude_characters"] == ALL_BUT_A
    put_policy(stack, name, days=1)
    assert name not in reasons(stack)
    assert stack.get(name)["version"] == 2


def test_oversized_policies_do_not_block_others(stack: Stack, name: str) -> None:
    """An unlimited schedule of 60 KB would expand to 34 MB in memory."""
    large = "cron(" + "*," * 30_000 + "* 3 * * ? *)"
    changes: dict[str, dict[str, Any]] = {
        **{f"schedule {number}": {"schedule": large} for number in range(5)},
        "zone": {"schedule": "cron(0 3 * * ? *)", "timezone": "U" * 60_000},
        "rules": {"exclude_characters": "0" * 60_000},
        "context": {"context": {"k": "v" * 60_000}},
        "template": {"template": json.dumps({"a": "x" * 60_000}), "template_key": "password"},
    }
    for each in ("a fine one", *changes, "z fine one"):
        stack.put(f"{name}/{each}", "s")
        put_policy(stack, f"{name}/{each}", days=1)
        edit(stack, f"{name}/{each}", due=int(time.time()) - 60, **changes.get(each, {}))
    failed = reasons(stack)
    for each in changes:
        assert failed[f"{name}/{each}"] == "unreadable"
        response = stack.invoke("policy", {"policy": "get", "name": f"{name}/{each}"})
        assert response.code == "Malformed"
        stack.done("policy", policy="cancel", name=f"{name}/{each}")
    for each in ("a fine one", "z fine one"):
        assert stack.get(f"{name}/{each}")["version"] == 2
