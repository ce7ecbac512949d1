"""Checks of what the API returned."""

import re
from collections.abc import Iterator
from typing import Any

from openapi.document import Operation, closed, fault
from openapi.requests import read


def check_responses(operations: dict[str, Operation], exchanges: list[Any]) -> Iterator[str]:
    """Yields the differences between the document and what the API returned.

    An exchange is a request with its `response`: `status`, `headers` and `body`.
    """
    for exchange in exchanges:
        operation = operations[exchange["operation"]]
        differences = [*check_response(operation, exchange["response"]), *check_outcome(exchange)]
        if exchange["expected"] == "accepted":
            differences += check_request(operation, exchange)
        for difference in differences:
            yield f"{operation.id}, {exchange['about']}: {difference}"


def is_from_coffer(response: Any) -> bool:
    """Whether a response is Coffer's, not an error of API Gateway."""
    body = response["body"]
    return response["status"] == 200 or (isinstance(body, dict) and "code" in body)


def check_response(operation: Operation, response: Any) -> Iterator[str]:
    """Yields what is not documented about a response."""
    status, body = response["status"], response["body"]
    documented = operation.responses.get(str(status), operation.responses["default"])
    if is_from_coffer(response):
        for name, header in documented.get("headers", {}).items():
            problem = fault(header["schema"], response["headers"].get(name.lower()))
            if problem:
                yield f"status {status}, header {name}: {problem}"
    kind = response["headers"].get("content-type")
    if kind in documented["content"]:
        problem = fault(closed(documented["content"][kind]["schema"]), body)
        if problem:
            yield f"status {status}: {problem}"
    else:
        yield f"status {status}: the content type {kind} is not documented"


def check_outcome(exchange: Any) -> Iterator[str]:
    """Yields why a response is not what its request must result in."""
    response, expected = exchange["response"], exchange["expected"]
    status, body = response["status"], response["body"]
    if expected == "any":
        return
    if status >= 500 or not is_from_coffer(response):
        yield f"status {status}: {body}"
    elif expected == "accepted" and status in (400, 413):
        yield f"the document allows this request, the API rejects it: {body}"
    elif expected == "rejected" and status not in (400, 413):
        yield f"the document does not allow this request, the API accepts it: status {status}"


def check_request(operation: Operation, exchange: Any) -> Iterator[str]:
    """Yields what the document does not allow in a request."""
    if "body" in exchange:
        problem = fault(operation.body.get("schema", False), exchange["body"])
        if problem:
            yield f"the document does not allow the body: {problem}"
    parameters = {parameter["name"]: parameter for parameter in operation.query}
    for name, text in exchange["query"]:
        parameter = parameters.get(re.sub(r"^context\..*", "context.KEY", name))
        if not parameter:
            yield f"the document does not allow the query field {name}"
        elif "schema" in parameter:
            problem = fault(parameter["schema"], read(parameter["schema"], text))
            if problem:
                yield f"the document does not allow the query field {name}: {problem}"
