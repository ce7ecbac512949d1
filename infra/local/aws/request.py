"""Parsing of requests, and the types that the other modules share."""

import base64
import json
from collections.abc import Awaitable, Callable
from typing import Any

from ministack.services import kms

# The JSON body of a request, a resource of the template, or ministack's record of a resource.
Fields = dict[str, Any]
Headers = dict[str, str]
# Status, headers and body.
Response = tuple[int, dict[str, str], bytes]
# ministack's handler of one service: (method, path, headers, body, query).
Handler = Callable[..., Awaitable[Response]]


def body_of(body: bytes | str | None) -> Fields:
    """Returns the JSON object in a request's body, which is empty if there is none."""
    try:
        parsed = json.loads(body or b"{}")
    except ValueError:
        return {}
    return parsed if isinstance(parsed, dict) else {}


def operation_of(headers: Headers) -> str:
    """Returns the operation that the header `x-amz-target` names."""
    return headers.get("x-amz-target", "").split(".")[-1]


def unbase64(text: str | None) -> bytes:
    return base64.b64decode(text or "")


def key_of(key_id: str | None) -> Any:
    """Returns ministack's record of a KMS key, by id, ARN or alias, or None."""
    return kms._resolve_key(key_id or "")
