"""Reads of bundles: every secret under a prefix, or an error that names those that failed."""

import csv
import io
import os
import re
import time
from concurrent.futures import ThreadPoolExecutor
from typing import Any
from urllib.parse import urlencode

import pytest
import yaml

from conftest import Faults, Stack
from fault_cases import fault
from legacy import Writer
from odd_values import ODD_VALUES

PUT_AT_ONCE = 50
LARGE_SIZE = 1000
LARGE_PREFIX = f"bundle-of-1000/{os.getpid()}"

# The prefix of a bundle and its secrets by name.
OddSecrets = tuple[str, dict[str, str]]


@pytest.fixture(scope="module")
def large_bundle(stack: Stack) -> list[str]:
    """Puts a thousand secrets under one prefix, in bundles, and returns their names."""
    names = [f"{LARGE_PREFIX}/{number:04}" for number in range(LARGE_SIZE)]

    def put(start: int) -> None:
        chunk = names[start : start + PUT_AT_ONCE]
        stack.done(
            "put",
            prefix=LARGE_PREFIX,
            secrets={secret_name: f"value of {secret_name}" for secret_name in chunk},
        )

    with ThreadPoolExecutor(4) as pool:
        list(pool.map(put, range(0, LARGE_SIZE, PUT_AT_ONCE)))
    return names


def test_a_bundle_of_a_thousand_secrets_can_be_read(stack: Stack, large_bundle: list[str]) -> None:
    expected = {secret_name: f"value of {secret_name}" for secret_name in large_bundle}
    assert stack.done("get", prefix=LARGE_PREFIX, format="json") == expected
    assert stack.by_http("get", {"prefix": LARGE_PREFIX, "format": "json"}).body == expected
    found = stack.pages("get", "secrets", prefix=LARGE_PREFIX, limit=300)
    assert [secret["name"] for secret in found] == large_bundle
    assert {secret["name"]: secret["secret"] for secret in found} == expected


def test_one_damaged_row_is_named_and_no_secret_is_returned(
    stack: Stack, large_bundle: list[str]
) -> None:
    damaged = large_bundle[617]
    row = stack.row(damaged)
    stack.rows.put_item(Item={**row, "comment": "edited"})
    try:
        for request in ({"limit": 1000}, {"format": "json"}, {"format": "csv"}):
            for origin, response in stack.both("get", {"prefix": LARGE_PREFIX, **request}):
                assert response.code == "Integrity"
                # The log names it for the operator.
                assert origin == "http" or damaged in response.log
                assert f'"{damaged}"' in response.message
                assert response.message.count(f"{LARGE_PREFIX}/") == 1
                assert set(response.body) == {"code", "message"}
    finally:
        stack.rows.put_item(Item=row)
    assert len(stack.done("get", prefix=LARGE_PREFIX, format="json")) == LARGE_SIZE


def test_every_secret_that_cannot_be_opened_is_named(stack: Stack, name: str) -> None:
    stack.put(f"{name}/fine", "s")
    stack.put(f"{name}/other context", "s", context={"a": "b"})
    stack.put(f"{name}/expired", "s", ttl=1)
    stack.put(f"{name}/moved", "s")
    stack.rows.put_item(Item={**stack.row(f"{name}/moved"), "name": f"{name}/here"})
    end = int(stack.row(f"{name}/expired")["expires_at"])
    while time.time() <= end:
        time.sleep(0.1)
    for origin, response in stack.both("get", {"prefix": name}):
        assert response.code == "Integrity"
        assert response.status == (500 if origin == "http" else None)
        for bad in ("other context", "expired", "here"):
            assert f'"{name}/{bad}"' in response.message
        for good in ("fine", "moved"):
            assert f'"{name}/{good}"' not in response.message


def test_each_form_of_a_prefix_selects_its_names(stack: Stack, name: str) -> None:
    secrets = [name, f"{name}/a", f"{name}/b/c", f"{name}.d", f"{name}_e", f"{name}f"]
    secrets += [f"/{name}", f"/{name}/g"]
    for secret_name in secrets:
        stack.put(secret_name, "s")
    for prefix, expected in (
        (name, [name, f"{name}/a", f"{name}/b/c", f"{name}.d"]),
        (f"{name}/*", [f"{name}/a", f"{name}/b/c"]),
        (f"{name}_*", [f"{name}_e"]),
        (f"{name}*", secrets[:6]),
        (f"/{name}", secrets[6:]),
        (f"/{name}/*", secrets[7:]),
    ):
        for verb in ("get", "list"):
            for origin, response in stack.both(verb, {"prefix": prefix}):
                assert response.code == "OK", (verb, origin, prefix, response)
                found = {entry["name"] for entry in response.body["secrets"]}
                assert found == set(expected), (verb, origin, prefix)
    # A trailing slash means the same as `/*`. The HTTP API may have no route for such a path.
    for verb in ("get", "list"):
        response = stack.invoke(verb, {"prefix": f"{name}/"})
        found = {entry["name"] for entry in response.body["secrets"]}
        assert found == {f"{name}/a", f"{name}/b/c"}
        by_http = stack.by_http(verb, {"prefix": f"{name}/"})
        assert by_http.status == 404 or by_http.body == response.body
    names = [entry["name"] for entry in stack.pages("list", "secrets", prefix="/", limit=1000)]
    assert set(names) >= set(secrets[6:])
    assert all(secret_name.startswith("/") for secret_name in names)


def test_all_secrets_can_be_read_as_one_bundle(stack: Stack, name: str) -> None:
    """Compares page by page with a listing, because other tests leave secrets that cannot be
    opened."""
    stack.put(f"/{name}", "s")
    cursor: dict[str, str] = {}
    opened = 0
    for number, page in enumerate(stack.each_page("list", limit=1)):
        (entry,) = page["secrets"]
        direct = stack.invoke("get", {"prefix": "*", "limit": 1, **cursor})
        by_http = stack.http("GET", "/bundle", query=urlencode({"limit": 1, **cursor}))
        for response in (direct, by_http):
            if response.code == "OK":
                assert [secret["name"] for secret in response.body["secrets"]] == [entry["name"]]
                opened += 1
            else:
                is_plain = re.fullmatch(r"[\w/.-]+", entry["name"], flags=re.ASCII)
                assert not is_plain or f'"{entry["name"]}"' in response.message
        if number == 20 or "next" not in page:
            break
        cursor = {"next": page["next"]}
    assert opened > 1


def test_an_empty_document_is_not_found(stack: Stack, name: str) -> None:
    stack.put(f"{name}/a", "s", context={"app": "web"})
    for document_format in ("json", "dotenv", "env-file", "yaml", "csv"):
        for origin, response in stack.both(
            "get", {"prefix": f"{name}/typo", "format": document_format}
        ):
            assert response.code == "NotFound"
            assert response.status == (404 if origin == "http" else None)
        request = {"prefix": name, "format": document_format, "only_context": True}
        assert stack.invoke("get", request).code == "NotFound"
    for _, response in stack.both("get", {"prefix": f"{name}/typo"}):
        assert response.body == {"secrets": []}


def test_throttled_reads_are_retried_in_another_pass(
    stack: Stack, faults: Faults, name: str
) -> None:
    stack.done("put", prefix=name, secrets={f"{name}/{n}": "s" for n in range(20)})
    # More failures than one pass has attempts.
    for call, count in (("kms:Decrypt", 90), ("dynamodb:Query", 90), ("dynamodb:Scan", 5)):
        faults.set(fault(call, "throttle", count=count))
        assert len(stack.done("get", prefix=name)["secrets"]) == 20


def test_a_bundle_can_contain_several_contexts(stack: Stack, name: str) -> None:
    web, api = {"app": "web"}, {"app": "api", "stage": "prod"}
    stack.put(f"{name}/web/a", "1", context=web)
    stack.put(f"{name}/web/b", "2", context=api)
    stack.put(f"{name}/rest", "3", context={"a": "b"})
    contexts: list[dict[str, Any]] = [
        {"prefix": f"{name}/web", "context": web},
        {"name": f"{name}/web/b", "context": api},
    ]
    request: dict[str, Any] = {"prefix": name, "contexts": contexts, "context": {"a": "b"}}
    for _, response in stack.both("get", request):
        assert sorted(secret["secret"] for secret in response.body["secrets"]) == ["1", "2", "3"]
    for _, response in stack.both("get", {**request, "contexts": contexts[:1]}):
        assert response.code == "Forbidden"
        assert f'"{name}/web/b"' in response.message and f'"{name}/web/a"' not in response.message
    for _, response in stack.both(
        "get", {**request, "contexts": contexts[:1], "only_context": True}
    ):
        assert {secret["secret"] for secret in response.body["secrets"]} == {"1", "3"}


def test_only_context_skips_secrets_with_other_contexts(stack: Stack, kms: Any, name: str) -> None:
    writer = Writer(kms, stack.key_arn)
    stack.put(f"{name}/web", "1", context={"app": "web"})
    stack.put(f"{name}/none", "2")
    stack.rows.put_item(Item=writer.row(f"{name}/old", "3"))
    cases: list[tuple[dict[str, str], set[str]]] = [
        ({"app": "web"}, {"1"}),
        ({}, {"2", "3"}),
        ({"app": "x"}, set()),
    ]
    for context, expected in cases:
        for _, response in stack.both(
            "get", {"prefix": name, "context": context, "only_context": True}
        ):
            assert {secret["secret"] for secret in response.body["secrets"]} == expected
        for _, response in stack.both("get", {"prefix": name, "context": context}):
            assert response.code == "Forbidden"
    # A damaged row is an error, not a secret with another context.
    stack.rows.put_item(Item={**stack.row(f"{name}/web"), "comment": "edited"})
    response = stack.invoke(
        "get", {"prefix": name, "context": {"app": "web"}, "only_context": True}
    )
    assert response.code == "Integrity" and f'"{name}/web"' in response.message


def test_one_context_applies_to_the_whole_bundle(stack: Stack, name: str) -> None:
    for number in range(3):
        stack.put(f"{name}/{number}", "s", context={"app": "web"})
    for _, response in stack.both("get", {"prefix": name, "context": {"app": "web"}}):
        assert [secret["secret"] for secret in response.body["secrets"]] == ["s"] * 3
    assert stack.invoke("get", {"prefix": name}).code == "Forbidden"


def test_large_values_are_paged_and_are_refused_as_a_document(stack: Stack, name: str) -> None:
    for number in range(12):
        stack.put(f"{name}/{number:02}", f"{number:02}" + '"' * 149_998)
    found = stack.pages("get", "secrets", prefix=name)
    assert [secret["secret"][:2] for secret in found] == [f"{number:02}" for number in range(12)]
    page = stack.by_http("get", {"prefix": name})
    assert page.status == 200 and "next" in page.body
    for _, response in stack.both("get", {"prefix": name, "format": "json"}):
        assert response.code == "TooLarge" and "`next`" in response.message


@pytest.fixture(scope="module")
def odd_secrets(stack: Stack) -> OddSecrets:
    """Puts values that are hard to represent. Returns their prefix and the values by name."""
    prefix = "odd"
    secrets = {f"{prefix}/{key}": value for key, value in ODD_VALUES.items()}
    stack.done("put", prefix=prefix, secrets=secrets)
    return prefix, secrets


def test_standard_parsers_read_documents_back(stack: Stack, odd_secrets: OddSecrets) -> None:
    prefix, secrets = odd_secrets
    for _, response in stack.both("get", {"prefix": prefix, "format": "json"}):
        assert response.body == secrets
    for document_format, media_type, parse in (
        ("yaml", "application/yaml", yaml.safe_load),
        (
            "csv",
            "text/csv; charset=utf-8",
            lambda text: dict(csv.reader(io.StringIO(text, newline=""))),
        ),
    ):
        direct = stack.done("get", prefix=prefix, format=document_format)
        response = stack.by_http("get", {"prefix": prefix, "format": document_format})
        assert response.body.decode() == direct
        assert response.headers["content-type"] == media_type
        assert response.headers["cache-control"] == "no-store"
        assert parse(direct) == secrets


def test_binary_values_are_refused_in_documents(stack: Stack, name: str) -> None:
    stack.put(f"{name}/text", "s")
    stack.put(f"{name}/bytes", secret_base64="/w==")
    for document_format in ("json", "yaml", "csv", "dotenv", "env-file"):
        response = stack.invoke("get", {"prefix": name, "format": document_format})
        assert response.code == "Invalid"
        assert f'"{name}/bytes"' in response.message and "text" in response.message
    assert len(stack.done("get", prefix=name)["secrets"]) == 2


@pytest.mark.parametrize(
    "fields",
    [
        {"format": "text"},
        {"format": "xml"},
        {"format": "json", "limit": 5},
        {"version": 1},
        {"format": "csv", "next": "e30"},
        {"limit": 0},
        {"limit": 1001},
        {"name": "n"},
        {"next": "e30"},
        {"prefix": "a//b"},
        {"prefix": "a\nb"},
        {"prefix": ""},
        {"uppercase": False},
        {"format": "json", "uppercase": True},
        {"only_context": 1},
        {"contexts": {}},
        {"contexts": "[]"},
        {"contexts": [{"context": {}}]},
        {"contexts": [{"name": "a", "prefix": "a", "context": {}}]},
        {"contexts": [{"name": "a", "context": {}}] * 2},
        {"contexts": [{"name": f"a{n}", "context": {}} for n in range(1001)]},
    ],
    ids=lambda fields: str(fields)[:60],
)
def test_an_invalid_request_for_a_bundle_is_refused(
    stack: Stack, name: str, fields: dict[str, Any]
) -> None:
    assert stack.invoke("get", {"prefix": name, **fields}).code == "Invalid"
