"""Bundles: put many secrets in one transaction, or none of them."""

import base64
import json
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from typing import Any
from urllib.parse import quote

import pytest

from conftest import MakeCaller, Stack

MAX_SECRETS = 50
BUNDLE_SIZE = 40


def test_a_bundle_can_be_put_and_read(stack: Stack, name: str) -> None:
    for send in (stack.invoke, stack.by_http):
        secrets: list[dict[str, Any]] = [
            {"name": f"{name}/a", "secret": "1", "comment": "c", "ttl": 3600},
            {"name": f"{name}.b", "secret_base64": base64.b64encode(b"\xff").decode()},
            {"name": name, "generate": {"length": 8}},
        ]
        response = send("put", {"prefix": name, "secrets": secrets})
        assert response.code == "OK", response
        assert [secret["name"] for secret in response.body["secrets"]] == [
            secret["name"] for secret in secrets
        ]
        assert all(
            set(secret) == {"name", "version", "revision"} for secret in response.body["secrets"]
        )
    for _, response in stack.both("get", {"prefix": name}):
        found = {secret.pop("name"): secret for secret in response.body["secrets"]}
        assert set(found) == {f"{name}/a", f"{name}.b", name}
        assert "next" not in response.body
        assert {secret["version"] for secret in found.values()} == {2}
        assert found[f"{name}/a"]["secret"] == "1" and found[f"{name}/a"]["comment"] == "c"
        assert found[f"{name}.b"]["secret_base64"] == "/w=="
        assert len(found[name]["secret"]) == 8
        assert all(secret["stages"] == ["AWSCURRENT"] for secret in found.values())
    for secret_name in (f"{name}/a", f"{name}.b", name):
        assert [event["version"] for event in stack.history(secret_name)] == [2, 1]
        assert stack.verify(secret_name) == {}


def test_secrets_can_be_given_as_a_map(stack: Stack, name: str) -> None:
    secrets = {f"{name}/{number}": str(number) for number in range(3)}
    for _, response in stack.both("put", {"prefix": name, "secrets": secrets}):
        assert response.code == "OK"
    assert stack.done("get", prefix=name, format="json") == secrets


def test_a_bundle_is_limited_to_one_transaction(stack: Stack, name: str) -> None:
    def bundle(count: int) -> dict[str, str]:
        return {f"{name}/{number:02}": f"value {number}" for number in range(count)}

    attempts: list[tuple[int, dict[str, str]]] = [
        (MAX_SECRETS + 1, {}),
        (MAX_SECRETS, {"token": name}),
    ]
    for count, token in attempts:
        for _, response in stack.both("put", {"prefix": name, "secrets": bundle(count), **token}):
            assert response.code == "TooLarge"
            assert "50" in response.message and "49" in response.message
    assert stack.done("get", prefix=name) == {"secrets": []}
    stack.done("put", prefix=name, secrets=bundle(MAX_SECRETS))
    assert stack.done("get", prefix=name, format="json") == bundle(MAX_SECRETS)
    stack.done("put", prefix=name, secrets=bundle(34), token=name)
    for number in (0, 33, 49):
        assert stack.verify(f"{name}/{number:02}") == {}
        # The chain heads are updated with the bundle.
        (head,) = stack.entries_of(f"{name}/{number:02}", "head")
        assert head["sequence"] == (2 if number < 34 else 1)
        assert stack.put(f"{name}/{number:02}", "alone")["version"] == (3 if number < 34 else 2)


def test_too_many_bytes_are_refused(stack: Stack, name: str) -> None:
    secrets = {f"{name}/{number}": "x" * 250_000 for number in range(14)}
    response = stack.invoke("put", {"prefix": name, "secrets": secrets})
    assert response.code == "TooLarge" and "4 MB" in response.message
    secrets = {f"{name}/small": "x", f"{name}/large": "x" * 400_000}
    response = stack.invoke("put", {"prefix": name, "secrets": secrets})
    assert response.code == "TooLarge" and '"secrets[1]"' in response.message
    assert stack.done("get", prefix=name) == {"secrets": []}


@pytest.mark.parametrize(
    "change",
    [
        {"secrets": None},
        {"secrets": []},
        {"secrets": {}},
        {"secrets": "text"},
        {"secrets": [{"name": "elsewhere", "secret": "s"}]},
        {"secrets": [{"name": "PREFIXx", "secret": "s"}]},
        {"secrets": [{"secret": "s"}]},
        {"secrets": [{"name": "PREFIX/a"}]},
        {"secrets": [{"name": "PREFIX/a", "secret": "s", "typo": 1}]},
        {"secrets": [{"name": "PREFIX/a", "secret": "s"}, {"name": "PREFIX/a", "secret": "t"}]},
        {"secrets": [{"name": "PREFIX/a", "secret": "s"}, {"name": "PREFIX/b", "secret": 5}]},
        {"secrets": [{"name": "PREFIX/a", "secret": "s"}, {"name": "PREFIX/b", "ttl": 1}]},
        {"secrets": {"PREFIX/a": ["s"]}},
        {"secrets": {"PREFIX/a": "s"}, "name": "PREFIX/a"},
        {"secrets": {"PREFIX/a": "s"}, "secret": "s"},
    ],
    ids=str,
)
def test_an_invalid_bundle_changes_nothing(stack: Stack, name: str, change: dict[str, Any]) -> None:
    text = json.dumps({"prefix": name, **change}).replace("PREFIX", name)
    request = {field: value for field, value in json.loads(text).items() if value is not None}
    for _, response in stack.both("put", request):
        assert response.code == "Invalid"
        assert "hunter" not in response.message and "typo" not in response.message
    assert stack.done("get", prefix=name) == {"secrets": []}
    assert stack.versions_of("elsewhere") == []


def test_one_existing_version_stops_the_bundle(stack: Stack, name: str) -> None:
    stack.put(f"{name}/b", "old")
    secrets = [{"name": f"{name}/{n}", "secret": "new", "version": 1} for n in "abc"]
    for _, response in stack.both("put", {"prefix": name, "secrets": secrets}):
        assert response.code == "Exists"
        # The message gives the position only and repeats nothing from the request.
        assert '"secrets[1]"' in response.message and name not in response.message
    assert stack.done("get", prefix=name, format="json") == {f"{name}/b": "old"}


def test_readers_see_all_of_a_bundle_or_none_of_it(stack: Stack, name: str) -> None:
    """Puts 40 secrets repeatedly. Every response has all values of one turn, or no secrets."""
    turns, readers = 8, 3
    done = threading.Event()
    seen: list[str | None] = []

    def read(_: int) -> None:
        while not done.is_set():
            response = stack.invoke("get", {"prefix": name})
            assert response.code == "OK", response
            values = {secret["secret"] for secret in response.body["secrets"]}
            assert len(response.body["secrets"]) in (0, BUNDLE_SIZE)
            assert len(values) <= 1, values
            seen.append(values.pop() if values else None)

    def write(turn: int) -> None:
        secrets = {f"{name}/{number:02}": f"turn {turn}" for number in range(BUNDLE_SIZE)}
        stack.done("put", prefix=name, secrets=secrets)
        # Wait until the readers have read it, so that none is starved.
        count, deadline = len(seen), time.monotonic() + 60
        while len(seen) < count + readers and time.monotonic() < deadline:
            time.sleep(0.05)

    with ThreadPoolExecutor(readers) as pool:
        reads = [pool.submit(read, number) for number in range(readers)]
        while not seen and not any(reader.done() for reader in reads):
            time.sleep(0.05)
        for turn in range(turns):
            write(turn)
        done.set()
        for reader in reads:
            reader.result()
    assert seen[0] is None and f"turn {turns - 1}" in seen
    assert len(set(seen)) > turns / 2


def test_concurrent_puts_of_overlapping_bundles_and_single_secrets_lose_nothing(
    stack: Stack, name: str
) -> None:
    def bundle(number: int) -> list[int]:
        secrets = {f"{name}/{n}": f"bundle {number}" for n in range(number % 3, number % 3 + 5)}
        return [
            secret["version"]
            for secret in stack.done("put", prefix=name, secrets=secrets)["secrets"]
        ]

    def single(number: int) -> int:
        return stack.put(f"{name}/{number % 7}", f"single {number}")["version"]

    with ThreadPoolExecutor(10) as pool:
        bundles, singles = pool.map(bundle, range(12)), pool.map(single, range(14))
        written = sum(map(len, bundles)) + len(list(singles))
    rows = [stack.versions_of(f"{name}/{number}") for number in range(7)]
    assert sum(map(len, rows)) == written == 12 * 5 + 14
    for number, found in enumerate(rows):
        assert [int(row["version"]) for row in found] == list(range(1, len(found) + 1))
        assert stack.verify(f"{name}/{number}") == {}


def test_bundles_can_be_put_under_each_form_of_a_prefix(stack: Stack, name: str) -> None:
    for prefix, good, bad in (
        (f"{name}/*", f"{name}/a", f"{name}.a"),
        (f"{name}_*", f"{name}_a", f"{name}/a"),
        (f"/{name}", f"/{name}/a", f"{name}/a"),
    ):
        for _, response in stack.both("put", {"prefix": prefix, "secrets": {good: "s"}}):
            assert response.code == "OK", response
        for _, response in stack.both("put", {"prefix": prefix, "secrets": {bad: "s"}}):
            assert response.code == "Invalid"
        assert len(stack.versions_of(good)) == 2
    assert stack.versions_of(f"{name}.a") == []


def test_a_policy_path_limits_which_bundle_a_caller_reaches(
    stack: Stack, caller: MakeCaller, name: str
) -> None:
    stack.put(f"{name}/a", "s")
    stack.put(f"{name}-other", "s")
    reader = caller(f"GET/bundle/{name}")
    response = stack.by_http("get", {"prefix": name}, credentials=reader)
    assert [secret["name"] for secret in response.body["secrets"]] == [f"{name}/a"]
    body: dict[str, Any] = {"secrets": {f"{name}/a": "x"}}
    for method, path, query, request_body in (
        ("GET", f"/bundle/{name}-other", "", None),
        ("GET", f"/bundle/{name}/a", "", None),
        ("GET", f"/secrets/{name}/a", "", None),
        ("PUT", f"/bundle/{name}", "", body),
    ):
        response = stack.http(method, path, query=query, body=request_body, credentials=reader)
        assert response.status == 403, (method, path)
    # Neither the query nor the body can redirect a request to another name than the path's.
    for method, path, query, request_body in (
        ("GET", f"/bundle/{name}", "prefix=secret", None),
        ("GET", f"/bundle/{name}", "name=" + quote(f"{name}-other", safe=""), None),
    ):
        response = stack.http(method, path, query=query, body=request_body, credentials=reader)
        assert response.status == 400
    # A permission below a slash covers only names below that slash.
    stack.put(f"{name}.b", "s")
    below = caller(f"GET/bundle/{name}/*")
    response = stack.by_http("get", {"prefix": f"{name}/*"}, credentials=below)
    assert [secret["name"] for secret in response.body["secrets"]] == [f"{name}/a"]
    for path in (
        f"/bundle/{name}",
        f"/bundle/{name}*",
        f"/bundle/{name}.*",
        "/bundle",
        "/bundle/*",
    ):
        assert stack.http("GET", path, credentials=below).status == 403, path
    everything = caller("GET/bundle")
    assert stack.http("GET", "/bundle", query="limit=1", credentials=everything).status != 403
    assert stack.http("GET", f"/bundle/{name}", credentials=everything).status == 403
    writer = caller(f"PUT/bundle/{name}")
    invalid_bodies: list[dict[str, Any]] = [
        {"secrets": {f"{name}-other": "x"}},
        {
            "secrets": [
                {"name": f"{name}/../other", "secret": "x"},
                {"name": "other", "secret": "x"},
            ]
        },
        {**body, "prefix": "other"},
        {**body, "name": "other"},
    ]
    for request_body in invalid_bodies:
        response = stack.http("PUT", f"/bundle/{name}", body=request_body, credentials=writer)
        assert response.status == 400, request_body
    assert len(stack.versions_of(f"{name}-other")) == 1
    assert stack.http("PUT", f"/bundle/{name}", body=body, credentials=writer).status == 200
