"""Failures on demand, and a count of calls: what no emulator has and every client must survive.

`POST /_local/faults` with `[{"service": "kms", "operation": "Decrypt", "kind": "throttle",
"count": 2}]` replaces all faults that are set; `[]` clears them. `kind` is `throttle`, `error` (an
internal one), `delay` (of `seconds`), `lost` (done, but answered with an internal error), or for a
transaction `conflict` (with another) or `busy` (throttled in one of its writes). Without `count` a
fault stays; with `every` it meets one call in so many. `POST /_local/calls` answers the calls since
the last time, as `{"kms:Decrypt": 3}`, and `POST /_local/rates` how many a second there were, at
the most, for five seconds on end.
"""

import asyncio
import json
import time
from collections import Counter, defaultdict

import ministack.app
from ministack.core.responses import error_response_json, json_response

from .request import body_of, operation_of

SERVICES = ("dynamodb", "kms")
THROTTLES = {"dynamodb": "ProvisionedThroughputExceededException", "kms": "ThrottlingException"}
INTERNAL = {"dynamodb": "InternalServerError", "kms": "KMSInternalException"}

CANCELLED = {"conflict": "TransactionConflict", "busy": "ThrottlingError"}

faults = []
calls = Counter()
times = defaultdict(list)


def due(service, operation):
    """The fault that this call meets, counted down."""
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


def most_a_second(moments, window=5):
    """Over some seconds, for this process may stop for a moment and then find many waiting."""
    most, first = 0, 0
    for last, moment in enumerate(moments):
        while moments[first] <= moment - window:
            first += 1
        most = max(most, last - first + 1)
    return most / window


def cancelled(code, writes):
    """A transaction that was cancelled for its first write."""
    reasons = [{"Code": code}] + [{"Code": "None"}] * (writes - 1)
    body = {
        "__type": "com.amazonaws.dynamodb.v20120810#TransactionCanceledException",
        "Message": "Transaction cancelled",
        "CancellationReasons": reasons,
    }
    return json_response(body, 400)


def faulty(service, inner):
    async def handle(method, path, headers, body, query):
        operation = operation_of(headers)
        calls[f"{service}:{operation}"] += 1
        times[f"{service}:{operation}"].append(time.monotonic())
        fault = due(service, operation)
        kind = fault and fault["kind"]
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


def install():
    for service in SERVICES:
        handlers = ministack.app.SERVICE_HANDLERS
        handlers[service] = faulty(service, handlers[service])
    inner = ministack.app._handle_admin_config_request

    async def handle_admin_request(path, method, body):
        if (method, path) == ("POST", "/_local/faults"):
            faults[:] = json.loads(body)
            return json_response({"faults": len(faults)})
        if (method, path) == ("POST", "/_local/calls"):
            answer = json_response(dict(calls))
            calls.clear()
            times.clear()
            return answer
        if (method, path) == ("POST", "/_local/rates"):
            return json_response({name: most_a_second(of) for name, of in times.items()})
        return await inner(path, method, body)

    ministack.app._handle_admin_config_request = handle_admin_request
