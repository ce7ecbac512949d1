"""A policy belongs to one life of its secret and is suspended in every other."""

import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest

from conftest import CommandLine, Stack
from legacy import Writer
from policies import (
    RULES,
    edit,
    is_suspended,
    make_due,
    now,
    operations,
    put_policy,
    reasons,
    timestamp,
)


@pytest.fixture(autouse=True)
def cancel_policies(stack: Stack, name: str) -> Iterator[None]:
    """Cancels the policies of a test when it ends.

    Otherwise, the runs of other files would report the suspended ones as failed.
    """
    yield
    for entry in stack.entries_of("/policies", f"policy#{name}"):
        name = entry["entry"].removeprefix("policy#")
        assert stack.invoke("policy", {"policy": "cancel", "name": name}).code in ("OK", "NotFound")


def test_a_policy_is_suspended_when_its_secret_is_deleted_and_put_again(
    stack: Stack, name: str
) -> None:
    """After the delete, somebody else puts the name again."""
    stack.put(name, "ours")
    put_policy(stack, name, days=1, generate=RULES)
    make_due(stack, name)
    stack.done("delete", name=name)
    assert is_suspended(stack, name)
    stack.put(name, "theirs")
    assert is_suspended(stack, name)
    assert reasons(stack)[name] == "suspended"
    for dry_run in (True, False):
        request = {"action": "renew", "name": name, "dry_run": dry_run}
        for _, response in stack.both("rotate", request):
            assert response.code == "Exists" and "Put the policy again" in response.message
    assert stack.get(name)["secret"] == "theirs"
    # A restore of the old version does not change that.
    stack.done("restore", name=name, version=1)
    assert reasons(stack)[name] == "suspended"
    # If the same policy is put again, it belongs to the new life.
    shown = put_policy(stack, name, days=1, generate=RULES)
    assert "suspended" not in shown and timestamp(shown["next_rotation_at"]) > now()
    assert not is_suspended(stack, name)
    make_due(stack, name)
    assert name not in reasons(stack)
    assert stack.get(name)["version"] == 3
    assert operations(stack, name) == [
        "renew",
        "policy",
        "restore",
        "put",
        "delete",
        "policy",
        "put",
    ]
    assert stack.verify(name) == {}


def test_a_forced_delete_removes_only_the_policy_of_its_own_life(stack: Stack, name: str) -> None:
    for each in ("ours", "theirs"):
        stack.put(f"{name}/{each}", "s")
        put_policy(stack, f"{name}/{each}", days=1)
        stack.done("delete", name=f"{name}/{each}")
    # Simulates a put of name and policy right after the last version was deleted.
    edit(stack, f"{name}/theirs", life=99)
    for each in ("ours", "theirs"):
        stack.done("delete", name=f"{name}/{each}", force=True)
    assert stack.invoke("policy", {"policy": "get", "name": f"{name}/ours"}).code == "NotFound"
    assert is_suspended(stack, f"{name}/theirs")
    stack.done("policy", policy="cancel", name=f"{name}/theirs")


def test_a_restore_resumes_only_the_policy_of_its_own_life(stack: Stack, name: str) -> None:
    stack.put(name, "ours")
    due = put_policy(stack, name, days=1)["next_rotation_at"]
    stack.done("delete", name=name)
    stack.done("restore", name=name)
    assert not is_suspended(stack, name)
    assert stack.done("policy", policy="get", name=name)["next_rotation_at"] == due
    # Deleting and restoring one of two versions does not change the life.
    stack.put(name, "ours, too")
    stack.done("delete", name=name, version=2)
    assert not is_suspended(stack, name)
    stack.done("restore", name=name, version=2)
    assert not is_suspended(stack, name)
    assert stack.done("rotate", action="renew", name=name)["version"] == 3
    # After a delete and a put by somebody else, a restore continues their life.
    stack.done("delete", name=name)
    stack.put(name, "theirs")
    stack.done("delete", name=name)
    stack.done("restore", name=name)
    assert stack.get(name)["secret"] == "theirs"
    assert is_suspended(stack, name)
    assert stack.invoke("rotate", {"action": "renew", "name": name}).code == "Exists"
    assert stack.verify(name) == {}


@pytest.mark.parametrize("by", ["old client", "put"])
def test_a_policy_is_suspended_when_an_old_client_deletes_its_secret(
    stack: Stack, credstash: CommandLine, name: str, by: str
) -> None:
    """A delete by an old client writes no event."""
    stack.put(name, "ours")
    put_policy(stack, name, days=1)
    make_due(stack, name)
    code, _, err = credstash("delete", name)
    assert code == 0, err
    assert name not in reasons(stack)
    assert is_suspended(stack, name)
    if by == "put":
        stack.put(name, "theirs")
    else:
        code, _, err = credstash("put", "-k", stack.key_arn, name, "theirs")
        assert code == 0, err
    assert reasons(stack)[name] == "suspended"
    assert is_suspended(stack, name)
    assert stack.invoke("rotate", {"action": "renew", "name": name}).code == "Exists"
    assert stack.get(name)["secret"] == "theirs"
    put_policy(stack, name, days=1, context={})
    assert not is_suspended(stack, name)
    version = stack.done("rotate", action="renew", name=name)["version"]
    # Coffer never reuses a number, even if an old client deletes the version.
    assert version == (3 if by == "put" else 2) and len(stack.get(name)["secret"]) == 32
    assert stack.verify(name) == {}


def test_a_version_of_an_old_client_does_not_end_a_life(
    stack: Stack, credstash: CommandLine, name: str
) -> None:
    stack.put(name, "ours")
    put_policy(stack, name, days=1, context={})
    make_due(stack, name)
    code, _, err = credstash("put", "-k", stack.key_arn, "-v", "2", name, "by hand")
    assert code == 0, err
    assert not is_suspended(stack, name)
    assert name not in reasons(stack)
    assert stack.get(name)["version"] == 3
    # A delete of such a version does not end the life either.
    code, _, err = credstash("put", "-k", stack.key_arn, "-v", "4", name, "by hand")
    assert code == 0, err
    stack.done("delete", name=name, version=4)
    assert not is_suspended(stack, name)
    assert stack.verify(name) == {}


@pytest.mark.parametrize("version", [f"{1:019}", "1"], ids=["padded", "unpadded"])
def test_a_reseal_does_not_end_a_life(stack: Stack, kms: Any, name: str, version: str) -> None:
    """The MAC of a row with an old digest changes, and so does an unpadded version."""
    row = Writer(kms, stack.key_arn).row(name, "s", digest="MD5")
    stack.rows.put_item(Item={**row, "version": version})
    put_policy(stack, name, days=1, context={})
    assert stack.done("reseal", action="reseal", name=name)["changed"] == 1
    [resealed] = stack.versions_of(name)
    assert resealed["version"] == f"{1:019}" and resealed["hmac"] != row["hmac"]
    assert not is_suspended(stack, name)
    assert stack.done("rotate", action="renew", name=name)["version"] == 2
    assert not is_suspended(stack, name)
    assert stack.verify(name) == {}


def test_a_policy_is_suspended_when_its_secret_expires(stack: Stack, name: str) -> None:
    stack.put(name, "ours", ttl=4)
    put_policy(stack, name, days=1)
    make_due(stack, name)
    end = int(stack.row(name)["expires_at"])
    while time.time() <= end:
        time.sleep(0.1)
    # An expired version counts as deleted, even if DynamoDB still has it.
    assert name not in reasons(stack)
    assert len(stack.versions_of(name)) <= 1
    assert is_suspended(stack, name)
    by_hand = stack.invoke("rotate", {"action": "renew", "name": name})
    assert by_hand.code in ("Exists", "NotFound")
    response = stack.invoke("policy", {"policy": "put", "name": name, "days": 1})
    assert response.code in ("Expired", "NotFound")
    stack.put(name, "theirs")
    assert reasons(stack)[name] == "suspended"
    assert stack.get(name)["secret"] == "theirs"
    stack.done("policy", policy="cancel", name=name)
    assert stack.verify(name) == {}


def test_a_policy_of_an_earlier_release_without_lives_stays_active(stack: Stack, name: str) -> None:
    """Events and policies of an earlier release do not have the attributes of lives."""
    for each in ("kept", "reused"):
        stack.put(f"{name}/{each}", "s")
        put_policy(stack, f"{name}/{each}", days=1)
    # Simulates that one of the two was deleted and put again before the update.
    for each, attributes in (("kept", {}), ("reused", {"state": "anew"})):
        for entry in stack.entries_of(f"{name}/{each}"):
            old = {key: entry[key] for key in entry if key not in ("life", "newest")}
            stack.entries.put_item(Item={**old, **attributes})
        stack.entries.update_item(
            Key={"name": "/policies", "entry": f"policy#{name}/{each}"},
            UpdateExpression="REMOVE life",
        )
        make_due(stack, f"{name}/{each}")
    failed = reasons(stack)
    assert f"{name}/kept" not in failed and failed[f"{name}/reused"] == "suspended"
    assert stack.get(f"{name}/kept")["version"] == 2
    assert stack.get(f"{name}/reused")["version"] == 1
    # A delete and a restore do not assign the policy to the new life.
    stack.done("delete", name=f"{name}/reused")
    stack.done("restore", name=f"{name}/reused")
    assert is_suspended(stack, f"{name}/reused")
    assert reasons(stack)[f"{name}/reused"] == "suspended"
    put_policy(stack, f"{name}/reused", days=1)
    assert stack.done("rotate", action="renew", name=f"{name}/reused")["version"] == 2


def test_concurrent_puts_do_not_end_a_life(stack: Stack, name: str) -> None:
    stack.put(f"{name}/policy", "first")
    put_policy(stack, f"{name}/policy", days=1)

    def put(number: int) -> str:
        each = f"{name}/{('policy', 'new')[number % 2]}"
        return stack.invoke("put", {"name": each, "secret": f"writer {number}"}).code

    with ThreadPoolExecutor(50) as pool:
        assert set(pool.map(put, range(100))) == {"OK"}
    assert not is_suspended(stack, f"{name}/policy")
    for each in ("policy", "new"):
        (head,) = stack.entries_of(f"{name}/{each}", "head")
        assert "state" not in head and head["life"] == 1
    assert stack.done("rotate", action="renew", name=f"{name}/policy")["version"] == 52


def test_restoring_a_version_of_an_earlier_life_suspends_the_policy_of_the_later_life(
    stack: Stack, name: str
) -> None:
    stack.put(name, "first owner")
    stack.done("delete", name=name)
    stack.put(name, "second owner")
    put_policy(stack, name, days=1)
    make_due(stack, name)
    stack.done("delete", name=name)
    assert stack.done("restore", name=name, version=1)["versions"] == [1]
    assert is_suspended(stack, name)
    assert reasons(stack)[name] == "suspended"
    assert stack.get(name)["secret"] == "first owner"
    # The policy of the later life is active again when its version is restored.
    stack.done("delete", name=name)
    assert stack.done("restore", name=name, version=2)["versions"] == [2]
    assert not is_suspended(stack, name)
    assert name not in reasons(stack)
    assert stack.get(name)["version"] == 3
    assert stack.verify(name) == {}


def test_a_version_deleted_within_a_life_can_be_restored_without_its_number(
    stack: Stack, name: str
) -> None:
    """Even if the life before ended with an expiry, which writes no event."""
    stack.put(name, "expired", ttl=1)
    while stack.invoke("get", {"name": name}).code != "Expired":
        pass
    stack.put(name, "second")
    stack.put(name, "third")
    stack.done("delete", name=name, version=2)
    assert stack.done("restore", name=name)["versions"] == [2]
