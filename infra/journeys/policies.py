"""Rotation policies for tests: put, make due, edit, and see what became of them."""

import string
import time
from datetime import UTC, datetime
from typing import Any

import rotation
from conftest import Stack

# The characters of generated values.
PRINTABLE = string.ascii_letters + string.digits + string.punctuation
# Rules for generated values: 20 letters and digits, with at least one of each type.
RULES = {"length": 20, "exclude_punctuation": True, "require_each_included_type": True}


def put_policy(stack: Stack, name: str, **fields: Any) -> Any:
    """Puts a policy and returns it."""
    return stack.done("policy", policy="put", name=name, **fields)


def timestamp(text: str) -> datetime:
    return datetime.fromisoformat(text)


def now() -> datetime:
    return datetime.now(UTC)


def make_due(stack: Stack, name: str, ago: int = 60) -> None:
    """Changes a policy so that its secret was due `ago` seconds ago."""
    stack.entries.update_item(
        Key={"name": "/policies", "entry": f"policy#{name}"},
        UpdateExpression="SET due = :due",
        ExpressionAttributeValues={":due": int(time.time()) - ago},
    )


def edit(stack: Stack, name: str, **attributes: Any) -> None:
    """Changes a policy in the ledger, without any validation."""
    stack.entries.update_item(
        Key={"name": "/policies", "entry": f"policy#{name}"},
        UpdateExpression="SET " + ", ".join(f"#{key} = :{key}" for key in attributes),
        ExpressionAttributeNames={f"#{key}": key for key in attributes},
        ExpressionAttributeValues={f":{key}": value for key, value in attributes.items()},
    )


def reasons(stack: Stack) -> dict[str, str]:
    """Does a run and returns why it could not renew a secret, by name."""
    failures = rotation.run(stack, "renew").get("failures", [])
    return {failure["name"]: failure["reason"] for failure in failures}


def is_suspended(stack: Stack, name: str) -> bool:
    """Returns whether a policy is suspended, by HTTP and by direct invoke alike.

    Only a suspended policy has no next rotation time.
    """
    policies = [
        response.body for _, response in stack.both("policy", {"policy": "get", "name": name})
    ]
    suspended = {policy.get("suspended", False) for policy in policies}
    assert {"next_rotation_at" not in policy for policy in policies} == suspended
    [only] = suspended
    return only


def operations(stack: Stack, name: str) -> list[str]:
    """Returns the operations in the history of a name, newest first."""
    return [event["operation"] for event in stack.history(name)]
