"""Hostile and invalid requests: they get the right error, change nothing and leave no trace."""

import base64
import json
from typing import Any

import pytest

from conftest import CommandLine, Stack
from planted import PLANTED, assert_no_trace, assert_not_logged

BODIES: dict[str, tuple[bytes, str | None]] = {
    "not JSON": (b'{"secret": "%s"' % PLANTED.encode(), "Malformed"),
    "text": (PLANTED.encode(), "Malformed"),
    "nothing but a quote": (b'"', "Malformed"),
    "not UTF-8": (b'{"secret": "%s\xff"}' % PLANTED.encode(), None),
    "an array": (json.dumps([PLANTED]).encode(), "Invalid"),
    "a string": (json.dumps(PLANTED).encode(), "Invalid"),
    "null": (b"null", "Invalid"),
    "an empty object": (b"{}", "Invalid"),
    "a doubled field": (b'{"secret":"%s","secret":"x"}' % PLANTED.encode(), "Invalid"),
    "a doubled key of context": (
        b'{"secret":"%s","context":{"a":"1","a":"2"}}' % PLANTED.encode(),
        "Invalid",
    ),
    "a second name": (b'{"name":"x","secret":"%s"}' % PLANTED.encode(), "Invalid"),
    "deep": (b'{"secret":%s%s}' % (b"[" * 100_000, b"]" * 100_000), "Invalid"),
    "deep and unclosed": (b'{"secret":' + b"[" * 100_000, "Malformed"),
    "deep objects": (b'{"context":' + b'{"a":' * 50_000 + b"1" + b"}" * 50_000 + b"}", "Invalid"),
}


@pytest.mark.parametrize("kind", BODIES)
def test_an_invalid_body_is_refused(stack: Stack, name: str, kind: str) -> None:
    body, code = BODIES[kind]
    response = stack.http("PUT", f"/secrets/{name}", body=body)
    if code:
        assert (response.code, response.status) == (code, 400)
        assert_no_trace(stack, name, response)
    # As application/octet-stream, the same bytes reach the function in base64. In text, the API
    # replaces bytes that are not UTF-8, so only base64 shows how the function treats them.
    name = f"{name}/bytes"
    response = stack.http(
        "PUT", f"/secrets/{name}", body=body, headers={"content-type": "application/octet-stream"}
    )
    assert (response.code, response.status) == (code or "Malformed", 400)
    assert_no_trace(stack, name, response)


REQUESTS: dict[str, dict[str, Any]] = {
    "no value": {},
    "an unknown field": {"secret": PLANTED, PLANTED: 1},
    "two values": {"secret": PLANTED, "secret_base64": "eA=="},
    "a value and rules": {"secret": PLANTED, "generate": {}},
    "a value that is not text": {"secret": {"value": PLANTED}},
    "a value of numbers": {"secret": [1, PLANTED]},
    "a null value": {"secret": None},
    "invalid base64": {"secret_base64": PLANTED},
    "base64 without padding": {"secret_base64": "cGw0bnRlZA"},
    "base64 in the URL alphabet": {"secret_base64": "_-8="},
    "version 0": {"secret": PLANTED, "version": 0},
    "version 10^19": {"secret": PLANTED, "version": 10**19},
    "version 10^30": {"secret": PLANTED, "version": 10**30},
    "version -1": {"secret": PLANTED, "version": -1},
    "version 1.5": {"secret": PLANTED, "version": 1.5},
    "a version in words": {"secret": PLANTED, "version": PLANTED},
    "a context that is not a map": {"secret": PLANTED, "context": PLANTED},
    "a context of numbers": {"secret": PLANTED, "context": {PLANTED: 1}},
    "a context with an empty key": {"secret": PLANTED, "context": {"": PLANTED}},
    "a context beyond KMS": {"secret": PLANTED, "context": {PLANTED: "x" * 8192}},
    "a wide context beyond KMS": {
        "secret": PLANTED,
        "context": {f"key {n}": "x" * 20 for n in range(500)},
    },
    "a comment that is not text": {"secret": PLANTED, "comment": [PLANTED]},
    "a time to live in words": {"secret": PLANTED, "ttl": PLANTED},
    "an expiry in words": {"secret": PLANTED, "expires_at": PLANTED},
    "rules in words": {"generate": PLANTED},
    "an unknown rule": {"generate": {PLANTED: True}},
}


@pytest.mark.parametrize("kind", REQUESTS)
def test_an_invalid_put_is_refused(stack: Stack, name: str, kind: str) -> None:
    for origin, response in stack.both("put", {"name": name, **REQUESTS[kind]}):
        assert response.code == "Invalid", (origin, response)
        assert response.status == (400 if origin == "http" else None)
        assert_no_trace(stack, name, response)


@pytest.mark.parametrize(
    "fields",
    [
        {"version": PLANTED * 100},
        {"version": True},
        {"version": -1},
        {"version": 10**19},
        {"version": 0},
        {"version": ""},
        {"stage": PLANTED},
        {"revision": PLANTED},
        {"format": PLANTED},
        {"version": 1, "stage": "AWSCURRENT"},
        {"context": {"": PLANTED}},
        {"secret": PLANTED},
        {PLANTED: "x"},
    ],
    ids=lambda request: str(request)[:40],
)
def test_an_invalid_get_is_refused(stack: Stack, name: str, fields: dict[str, Any]) -> None:
    for origin, response in stack.both("get", {"name": name, **fields}):
        assert response.code == "Invalid", (origin, response)
        assert_no_trace(stack, name, response)


@pytest.mark.parametrize(
    "fields",
    [
        {"limit": 0},
        {"limit": 1001},
        {"limit": PLANTED},
        {"next": PLANTED},
        {"next": base64.urlsafe_b64encode(b'{"name":"","version":""}').decode()},
        {"prefix": "a//b"},
        {"prefix": ""},
        {"name": "a", "prefix": "b"},
        {PLANTED: 1},
    ],
    ids=str,
)
def test_an_invalid_list_is_refused(stack: Stack, fields: dict[str, Any]) -> None:
    responses = [stack.invoke("list", fields)]
    if "prefix" not in fields and "name" not in fields:
        responses.append(stack.by_http("list", fields))
    for response in responses:
        assert response.code == "Invalid"
        assert PLANTED not in json.dumps(response.body) + response.log


@pytest.mark.parametrize("payload", [b"[]", b"1", b'"text"', b"null", b"true"], ids=str)
def test_a_payload_that_is_not_an_object_is_refused(stack: Stack, payload: bytes) -> None:
    for verb in ("put", "get", "list"):
        response = stack.invoke(verb, payload)
        assert response.code == "Invalid" or (verb == "list" and payload == b"null"), response


def test_a_megabyte_is_too_large_and_leaves_no_trace(stack: Stack, name: str) -> None:
    secret = PLANTED * (2**20 // len(PLANTED))
    for _, response in stack.both("put", {"name": name, "secret": secret}):
        assert response.code == "TooLarge"
        assert_no_trace(stack, name, response)


WIDE: dict[str, dict[str, Any]] = {
    "an array of small objects": {"secrets": [{"": 1}] * 200_000},
    "a wide map of secrets": {"secrets": {f"{PLANTED}{n}": 1 for n in range(40_000)}},
    "an array of wide objects": {"secrets": [{str(n): PLANTED for n in range(1000)}] * 50},
    "wide contexts": {
        "secrets": [
            {"name": "a", "secret": PLANTED, "context": {f"{PLANTED}{n}": "" for n in range(2000)}}
        ]
        * 20
    },
    "many fields": {f"{PLANTED}{n}": 1 for n in range(40_000)},
    "a token that is an array": {"secrets": {"a": "s"}, "token": [[]] * 400_000},
}


@pytest.mark.parametrize("kind", WIDE)
def test_a_request_that_would_use_up_the_memory_is_refused(
    stack: Stack, name: str, kind: str
) -> None:
    """The function has 256 MB of memory. Parsing these requests without limits would exceed it."""
    for origin, response in stack.both("put", {"prefix": name, **WIDE[kind]}):
        assert response.code in ("Invalid", "TooLarge"), (origin, response)
        assert response.status in ((400, 413) if origin == "http" else (None,))
        assert_no_trace(stack, name, response)
    # The function still works.
    stack.put(name, "s")


def test_every_invalid_secret_of_a_bundle_is_named(stack: Stack, name: str) -> None:
    secrets: list[Any] = [{"name": f"{name}/{n}", "secret": "s"} for n in range(50)]
    secrets[3]["secret"] = {"value": PLANTED}
    secrets[17]["name"] = f"{name}//{PLANTED}"
    secrets[37]["secret_base64"] = PLANTED
    secrets[41]["name"] = f"other/{PLANTED}"
    secrets[49]["name"] = f"{name}/0"
    for _, response in stack.both("put", {"prefix": name, "secrets": secrets}):
        assert response.code == "Invalid"
        for position in (3, 17, 37, 41, 49):
            assert f'"secrets[{position}]"' in response.message
        assert '"secrets[0]"' not in response.message
        assert_no_trace(stack, name, response)
    secrets[20] = PLANTED
    for _, response in stack.both("put", {"prefix": name, "secrets": secrets}):
        assert response.code == "Invalid" and '"secrets[20]"' in response.message
        assert_no_trace(stack, name, response)
    assert stack.done("get", prefix=name) == {"secrets": []}


def test_base64_in_lines_is_accepted(stack: Stack, name: str) -> None:
    """Accepts the output of `base64 file`."""
    octets = bytes(range(256))
    request = {"name": name, "secret_base64": base64.encodebytes(octets).decode()}
    for _, response in stack.both("put", request):
        assert response.code == "OK"
        opened = stack.get(name)
        assert base64.b64decode(opened["secret_base64"]) == octets


def test_a_forged_http_request_of_many_headers_is_read_or_refused(stack: Stack, name: str) -> None:
    """A map of headers panics beyond a limit, which would end the process."""
    stack.put(name, "s")
    request: dict[str, Any] = {
        "version": "2.0",
        "requestContext": {"http": {"method": "GET"}},
        "headers": {f"x-{n}": "v" for n in range(50_000)},
        "pathParameters": {"name": name},
    }
    response = stack.invoke("get", request)
    assert (response.code, response.body["statusCode"]) == ("OK", 200)
    request = {**request, "headers": {}, "pathParameters": {f"p{n}": "v" for n in range(50_000)}}
    assert stack.invoke("get", request).body["statusCode"] == 400


def test_a_forged_http_request_gains_nothing(stack: Stack, name: str) -> None:
    """A direct caller can claim to be anybody, but gains no access by it."""
    request = {
        "version": "2.0",
        "requestContext": {"http": {"method": "GET"}, "authorizer": {"iam": {"userArn": "root"}}},
        "pathParameters": {"name": name},
    }
    response = stack.invoke("get", request)
    assert (response.code, response.body["statusCode"]) == ("OK", 404)
    request_contexts: list[Any] = [1, None, {}, "x"]
    for context in request_contexts:
        response = stack.invoke("get", {"requestContext": context, "name": name})
        assert json.loads(response.body["body"])["code"] == "Malformed"


def test_wrong_missing_and_extra_contexts_are_forbidden(stack: Stack, name: str) -> None:
    stack.put(name, "s", context={"app": PLANTED, "stage": f"{PLANTED}-2"})
    contexts: list[dict[str, str]] = [
        {},
        {"app": PLANTED},
        {"app": PLANTED, "stage": "other"},
        {"app": PLANTED, "stage": f"{PLANTED}-2", "more": "x"},
        {"APP": PLANTED, "stage": f"{PLANTED}-2"},
    ]
    for context in contexts:
        for origin, response in stack.both("get", {"name": name, "context": context}):
            assert response.code == "Forbidden"
            assert response.status == (403 if origin == "http" else None)
            assert '"app"' in response.message and '"stage"' in response.message
            assert PLANTED not in response.message + response.log
    stack.put(name, "s")
    for _, response in stack.both("get", {"name": name, "context": {"app": "x"}}):
        assert response.code == "Forbidden"
        assert "without encryption context" in response.message


def test_a_wrong_context_of_a_legacy_row_is_forbidden(
    stack: Stack, credstash: CommandLine, name: str
) -> None:
    assert credstash("put", "-k", stack.key_arn, name, "s", "app=web")[0] == 0
    contexts: list[dict[str, str]] = [{}, {"app": "other"}]
    for context in contexts:
        for _, response in stack.both("get", {"name": name, "context": context}):
            assert response.code == "Forbidden"
            assert "legacy" in response.message


def test_no_planted_value_is_in_any_log(stack: Stack) -> None:
    """Runs after the tests above and reads every log."""
    assert_not_logged(stack)
