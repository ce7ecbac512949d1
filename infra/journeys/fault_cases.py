"""The AWS calls of each function, and requests that lead to them."""

from collections.abc import Iterator
from typing import Any

from conftest import Response, Stack, client
from legacy import Writer

WRITE = "dynamodb:TransactWriteItems"

# The AWS calls without which a request to each function fails.
CALLS_OF = {
    "put": ["dynamodb:Query", "kms:GenerateDataKey", "dynamodb:TransactWriteItems"],
    "get": ["dynamodb:Query", "kms:Decrypt"],
    "list": ["dynamodb:Scan"],
    "delete": ["dynamodb:Query", "dynamodb:TransactWriteItems"],
    "restore": ["dynamodb:Query", "dynamodb:TransactWriteItems"],
    "rewrap": ["dynamodb:Query", "kms:ReEncrypt", "dynamodb:UpdateItem"],
    "reseal": ["dynamodb:Query", "kms:Decrypt", "dynamodb:TransactWriteItems"],
    "renew": ["dynamodb:Query", "kms:GenerateDataKey", "dynamodb:TransactWriteItems"],
    "policy": ["dynamodb:Query", "dynamodb:TransactWriteItems"],
}
# The functions that HTTP reaches through rotate only.
ROTATIONS = ("rewrap", "reseal", "renew")


def request_of(verb: str, name: str) -> dict[str, Any]:
    """Returns a request that the function accepts after `prepare`."""
    if verb in ROTATIONS:
        return {"action": verb, "name": name}
    requests: dict[str, dict[str, Any]] = {
        "put": {"name": name, "secret": "new"},
        "list": {},
        "policy": {"policy": "put", "name": name, "days": 1},
    }
    return requests.get(verb, {"name": name})


def both(stack: Stack, verb: str, request: dict[str, Any]) -> Iterator[tuple[str, Response]]:
    """Sends the request by direct invoke and by HTTP. HTTP reaches a run through rotate."""
    yield "direct", stack.invoke(verb, request)
    yield "http", stack.by_http("rotate" if verb in ROTATIONS else verb, request)


def prepare(stack: Stack, verb: str, name: str) -> None:
    """Makes one version on which the function has something to do."""
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


def count(stack: Stack, name: str) -> int:
    """Returns the number of versions, live or deleted."""
    return len(stack.versions_of(name)) + len(stack.entries_of(name, "deleted#"))


def fault(call: str, kind: str, **settings: Any) -> dict[str, Any]:
    """Returns a fault of an operation: `fault("kms:Decrypt", "throttle", count=2)`."""
    service, operation = call.split(":")
    return {"service": service, "operation": operation, "kind": kind, **settings}
