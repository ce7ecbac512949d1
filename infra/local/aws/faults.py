"""Failures on demand, and a count of the calls of KMS and DynamoDB.

- `POST /_local/faults` replaces all faults by those of its body, a JSON array.
- `POST /_local/calls` returns the number of calls since the last such request, as
  `{"kms:Decrypt": 3}`, and resets the counts.
- `POST /_local/rates` returns the highest rate of each operation since then, in calls per second
  over five seconds.

A fault is `{"service": "kms", "operation": "Decrypt", "kind": "throttle", "count": 2}`:

| field     | meaning                                                               |
|-----------|-----------------------------------------------------------------------|
| `kind`    | `throttle`: the call is throttled                                     |
|           | `error`: the call fails with an internal error                        |
|           | `delay`: the call is delayed by `seconds`                             |
|           | `lost`: the call is done, but the response is an internal error       |
|           | `conflict`: the transaction conflicts with another one                |
|           | `busy`: a write of the transaction is throttled                       |
| `count`   | how many calls fail; without it, the fault stays                      |
| `every`   | the fault affects one call in this many                               |
"""

import asyncio
import json
import time
from collections import Counter, defaultdict
from typing import Any

import ministack.app
from ministack.core.responses import error_response_json, json_response

from .request import Fields, Handler, Headers, Response, body_of, operation_of

SERVICES = ("dynamodb", "kms")
THROTTLES = {"dynamodb": "ProvisionedThroughputExceededException", "kms": "ThrottlingException"}
INTERNAL = {"dynamodb": "InternalServerError", "kms": "KMSInternalException"}

# The cancellation reasons of a transaction.
CANCELLED = {"conflict": "TransactionConflict", "busy": "ThrottlingError"}

faults: list[Fields] = []
calls: Counter[str] = Counter()
times: defaultdict[str, list[float]] = defaultdict(list)


def due(service: str, operation: str) -> Fields | None:
    """Returns the fault that affects this call, or None. Decrements the fault's count."""
    for fault in faults:
        if (fault["service"], fault["operation"]) != (service, operation):
            continue
        fault["met"] = fault.get("met", 0) + 1
        if fault["met"] % fault.get("every", 1):
            return None
        left = fault.get("count")
        if left is None or left > 0:
            if left is not None:
                fault["count"] = left - 1
            return fault
    return None


def highest_rate(moments: list[float], window: int = 5) -> float:
    """Returns the highest number of calls per second, over any `window` seconds.

    Over one second it would be too high after this process had stopped for a moment.
    """
    most, first = 0, 0
    for last, moment in enumerate(moments):
        while moments[first] <= moment - window:
            first += 1
        most = max(most, last - first + 1)
    return most / window


def cancelled(code: str, writes: int) -> Response:
    """Returns the error of a transaction that was canceled because of its first write."""
    reasons = [{"Code": code}] + [{"Code": "None"}] * (writes - 1)
    body = {
        "__type": "com.amazonaws.dynamodb.v20120810#TransactionCanceledException",
        "Message": "Transaction cancelled",
        "CancellationReasons": reasons,
    }
    return json_response(body, 400)


def faulty(service: str, inner: Handler) -> Handler:
    """Returns a service's handler that counts calls and injects faults."""

    async def handle(method: str, path: str, headers: Headers, body: bytes, query: Any) -> Response:
        operation = operation_of(headers)
        calls[f"{service}:{operation}"] += 1
        times[f"{service}:{operation}"].append(time.monotonic())
        fault = due(service, operation) or {}
        kind = fault.get("kind")
        if kind == "throttle":
            return error_response_json(THROTTLES[service], "Rate exceeded", 400)
        if kind == "error":
            return error_response_json(INTERNAL[service], "internal", 500)
        if kind in CANCELLED:
            return cancelled(CANCELLED[kind], len(body_of(body).get("TransactItems", [])))
        if kind == "delay":
            await asyncio.sleep(fault["seconds"])
        response = await inner(method, path, headers, body, query)
        if kind == "lost":
            return error_response_json(INTERNAL[service], "internal", 500)
        return response

    return handle


def install() -> None:
    for service in SERVICES:
        handlers = ministack.app.SERVICE_HANDLERS
        handlers[service] = faulty(service, handlers[service])
    inner = ministack.app._handle_admin_config_request

    async def handle_admin_request(path: str, method: str, body: bytes) -> Any:
        if (method, path) == ("POST", "/_local/faults"):
            faults[:] = json.loads(body)
            return json_response({"faults": len(faults)})
        if (method, path) == ("POST", "/_local/calls"):
            response = json_response(dict(calls))
            calls.clear()
            times.clear()
            return response
        if (method, path) == ("POST", "/_local/rates"):
            return json_response({name: highest_rate(moments) for name, moments in times.items()})
        return await inner(path, method, body)

    ministack.app._handle_admin_config_request = handle_admin_request
