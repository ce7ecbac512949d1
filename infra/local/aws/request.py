"""What every part reads off a request."""

import base64
import json

from ministack.services import kms


def body_of(body):
    """The JSON object in a request's body; empty if there is none."""
    try:
        parsed = json.loads(body or b"{}")
    except ValueError:
        return {}
    return parsed if isinstance(parsed, dict) else {}


def operation_of(headers):
    """The operation that a JSON protocol's target names."""
    return headers.get("x-amz-target", "").split(".")[-1]


def unbase64(text):
    return base64.b64decode(text or "")


def key_of(key_id):
    """ministack's record of a KMS key, by id, ARN or alias."""
    return kms._resolve_key(key_id or "")
