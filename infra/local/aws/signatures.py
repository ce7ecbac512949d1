"""Signatures: verifies those of every caller, the account's root included.

ministack verifies IAM users and temporary credentials, but accepts any signature of `test` and of
account numbers. It also accepts an `x-amz-content-sha256` that is not the hash of the body, and at
an API's address a signature for any service. AWS checks all three.
"""

import hashlib
import re
from collections.abc import Callable
from contextvars import ContextVar
from typing import Any

import ministack.app
from ministack.core import iam_evaluator, sigv4

from .request import Headers

SHA256 = re.compile(r"[0-9a-f]{64}")

# Whether a signature is being verified.
verifying = ContextVar("verifying", default=False)


def checking_root(inner: Callable[..., Any]) -> Callable[..., Any]:
    """Returns the function, changed to verify the root's keys like any others."""

    def check(*arguments: Any, **named: Any) -> Any:
        token = verifying.set(True)
        try:
            return inner(*arguments, **named)
        finally:
            verifying.reset(token)

    return check


def wrong_service(signature: Any, raw_path: str, headers: Headers) -> bool:
    """Returns whether a request to an API is signed for a service other than `execute-api`."""
    api = ministack.app._parse_execute_api_url(headers.get("host", ""), raw_path)
    return api is not None and signature.service != "execute-api"


def other_body(headers: Headers, body: bytes) -> bool:
    """Returns whether the signed hash is not that of the body.

    `UNSIGNED-PAYLOAD` and the markers of signed chunks are not hashes.
    """
    signed = headers.get("x-amz-content-sha256", "")
    return bool(SHA256.fullmatch(signed)) and signed != hashlib.sha256(body).hexdigest()


def install() -> None:
    root, failure = iam_evaluator._is_root_key, sigv4.header_signature_failure

    def is_root_key(access_key_id: str) -> bool:
        return not verifying.get() and root(access_key_id)

    def header_signature_failure(
        signature: Any,
        secret: str,
        method: str,
        raw_path: str,
        query_params: Any,
        headers: Headers,
        body: bytes,
        **named: Any,
    ) -> Any:
        if wrong_service(signature, raw_path, headers) or other_body(headers, body):
            return "SignatureDoesNotMatch", sigv4.SIGNATURE_MISMATCH
        return failure(signature, secret, method, raw_path, query_params, headers, body, **named)

    iam_evaluator._is_root_key = is_root_key
    sigv4.header_signature_failure = header_signature_failure
    for name in ("pin_signed_request", "caller_verified"):
        checked = checking_root(getattr(iam_evaluator, name))
        setattr(iam_evaluator, name, checked)
        if hasattr(ministack.app, name):
            setattr(ministack.app, name, checked)
