"""Signatures of every caller: the account's root too, whose secret ministack never checks.

ministack verifies IAM users and temporary credentials, but serves `test` and account numbers
whatever they sign with. It also believes an `x-amz-content-sha256` without reading the body, and a
signature for any service at an API's address. AWS checks all three.
"""

import hashlib
import re
from contextvars import ContextVar

import ministack.app
from ministack.core import iam_evaluator, sigv4

SHA256 = re.compile(r"[0-9a-f]{64}")

verifying = ContextVar("verifying", default=False)


def checking_root(inner):
    """The function, with the root's keys treated as keys that are to be verified."""

    def check(*arguments, **named):
        token = verifying.set(True)
        try:
            return inner(*arguments, **named)
        finally:
            verifying.reset(token)

    return check


def wrong_service(signature, raw_path, headers):
    """Whether a request to an API is signed for another service than `execute-api`."""
    api = ministack.app._parse_execute_api_url(headers.get("host", ""), raw_path)
    return api is not None and signature.service != "execute-api"


def other_body(headers, body):
    """Whether the hash that was signed is not the body's. `UNSIGNED-PAYLOAD` and the markers of
    signed chunks are no hashes."""
    signed = headers.get("x-amz-content-sha256", "")
    return bool(SHA256.fullmatch(signed)) and signed != hashlib.sha256(body).hexdigest()


def install():
    root, failure = iam_evaluator._is_root_key, sigv4.header_signature_failure

    def is_root_key(access_key_id):
        return not verifying.get() and root(access_key_id)

    def header_signature_failure(
        signature, secret, method, raw_path, query_params, headers, body, **named
    ):
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
