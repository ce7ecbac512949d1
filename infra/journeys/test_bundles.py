"""Many secrets at once: put all or none, got all or an error that names the ones in question."""

import base64
import csv
import io
import json
import os
import re
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from urllib.parse import quote, urlencode

import pytest
import yaml
from legacy import Writer
from test_faults import fault

MOST = 50
BUNDLE = 40
LARGE = 1000
THOUSAND = f"bundle-of-1000/{os.getpid()}"
# What formats stumble over.
ODD = {
    "plain": "hunter2",
    "empty": "",
    "spaces": "  two  ",
    "quotes": 'she said "no"',
    "apostrophe": "it's",
    "lines": "one\ntwo\n\nthree\n",
    "unicode": "pässword 鍵 🔑",
    "yes": "yes",
    "number": "012",
    "date": "2001-01-01",
    "comma": "a,b;c",
    "hash": "a # b: c",
    "equals": "a=b",
    "dollar": "$HOME `id` \\n",
    "brackets": "[1, {2}]",
    "Dotted.name": "d",
    "with space": "s",
    "ключ": "k",
}


def test_a_bundle_goes_in_and_comes_out(stack, name):
    for door in (stack.invoke, stack.by_http):
        secrets = [
            {"name": f"{name}/a", "secret": "1", "comment": "c", "ttl": 3600},
            {"name": f"{name}.b", "secret_base64": base64.b64encode(b"\xff").decode()},
            {"name": name, "generate": {"length": 8}},
        ]
        answer = door("put", {"prefix": name, "secrets": secrets})
        assert answer.code == "OK", answer
        assert [each["name"] for each in answer.body["secrets"]] == [s["name"] for s in secrets]
        assert all(set(each) == {"name", "version", "revision"} for each in answer.body["secrets"])
    for _, got in stack.both("get", {"prefix": name}):
        found = {each.pop("name"): each for each in got.body["secrets"]}
        assert set(found) == {f"{name}/a", f"{name}.b", name}
        assert "next" not in got.body
        assert {each["version"] for each in found.values()} == {2}
        assert found[f"{name}/a"]["secret"] == "1" and found[f"{name}/a"]["comment"] == "c"
        assert found[f"{name}.b"]["secret_base64"] == "/w=="
        assert len(found[name]["secret"]) == 8
        assert all(each["stages"] == ["AWSCURRENT"] for each in found.values())
    for each in (f"{name}/a", f"{name}.b", name):
        assert [event["version"] for event in stack.history(each)] == [2, 1]
        assert stack.verify(each) == {}


def test_a_map_is_as_good_as_an_array(stack, name):
    secrets = {f"{name}/{number}": str(number) for number in range(3)}
    for _, answer in stack.both("put", {"prefix": name, "secrets": secrets}):
        assert answer.code == "OK"
    assert stack.done("get", prefix=name, format="json") == secrets


def test_as_many_as_a_transaction_holds_and_no_more(stack, name):
    def bundle(count):
        return {f"{name}/{number:02}": f"value {number}" for number in range(count)}

    for count, more in ((MOST + 1, {}), (MOST, {"token": name})):
        for _, answer in stack.both("put", {"prefix": name, "secrets": bundle(count), **more}):
            assert answer.code == "TooLarge"
            assert "50" in answer.message and "49" in answer.message
    assert stack.done("get", prefix=name) == {"secrets": []}
    stack.done("put", prefix=name, secrets=bundle(MOST))
    assert stack.done("get", prefix=name, format="json") == bundle(MOST)
    stack.done("put", prefix=name, secrets=bundle(34), token=name)
    for number in (0, 33, 49):
        assert stack.verify(f"{name}/{number:02}") == {}
        # The heads of a bundle follow it.
        (head,) = stack.entries_of(f"{name}/{number:02}", "head")
        assert head["sequence"] == (2 if number < 34 else 1)
        assert stack.put(f"{name}/{number:02}", "alone")["version"] == (3 if number < 34 else 2)


def test_too_many_bytes_are_told(stack, name):
    secrets = {f"{name}/{number}": "x" * 250_000 for number in range(14)}
    answer = stack.invoke("put", {"prefix": name, "secrets": secrets})
    assert answer.code == "TooLarge" and "4 MB" in answer.message
    secrets = {f"{name}/small": "x", f"{name}/large": "x" * 400_000}
    answer = stack.invoke("put", {"prefix": name, "secrets": secrets})
    assert answer.code == "TooLarge" and '"secrets[1]"' in answer.message
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
def test_a_bundle_that_is_wrong_anywhere_changes_nothing(stack, name, change):
    text = json.dumps({"prefix": name, **change}).replace("PREFIX", name)
    request = {field: value for field, value in json.loads(text).items() if value is not None}
    for _, answer in stack.both("put", request):
        assert answer.code == "Invalid"
        assert "hunter" not in answer.message and "typo" not in answer.message
    assert stack.done("get", prefix=name) == {"secrets": []}
    assert stack.versions_of("elsewhere") == []


def test_one_version_that_is_taken_stops_the_bundle(stack, name):
    stack.put(f"{name}/b", "old")
    secrets = [{"name": f"{name}/{n}", "secret": "new", "version": 1} for n in "abc"]
    for _, answer in stack.both("put", {"prefix": name, "secrets": secrets}):
        assert answer.code == "Exists"
        # By its place: nothing of what was sent is said back.
        assert '"secrets[1]"' in answer.message and name not in answer.message
    assert stack.done("get", prefix=name, format="json") == {f"{name}/b": "old"}


def test_readers_see_a_bundle_whole_or_not_at_all(stack, name):
    """40 secrets, put again and again; every answer has all of one turn, or none at all."""
    turns, readers = 8, 3
    done = threading.Event()
    seen = []

    def read(_):
        while not done.is_set():
            answer = stack.invoke("get", {"prefix": name})
            assert answer.code == "OK", answer
            values = {each["secret"] for each in answer.body["secrets"]}
            assert len(answer.body["secrets"]) in (0, BUNDLE)
            assert len(values) <= 1, values
            seen.append(values.pop() if values else None)

    def write(turn):
        secrets = {f"{name}/{number:02}": f"turn {turn}" for number in range(BUNDLE)}
        stack.done("put", prefix=name, secrets=secrets)
        # Every reader sees it before the next turn, so that none is starved.
        count, deadline = len(seen), time.monotonic() + 60
        while len(seen) < count + readers and time.monotonic() < deadline:
            time.sleep(0.05)

    with ThreadPoolExecutor(readers) as pool:
        reads = [pool.submit(read, number) for number in range(readers)]
        while not seen and not any(each.done() for each in reads):
            time.sleep(0.05)
        for turn in range(turns):
            write(turn)
        done.set()
        for each in reads:
            each.result()
    assert seen[0] is None and f"turn {turns - 1}" in seen
    assert len(set(seen)) > turns / 2


def test_writers_of_overlapping_bundles_and_single_secrets_lose_nothing(stack, name):
    def bundle(number):
        secrets = {f"{name}/{n}": f"bundle {number}" for n in range(number % 3, number % 3 + 5)}
        return [each["version"] for each in stack.done("put", prefix=name, secrets=secrets)["secrets"]]

    def single(number):
        return stack.put(f"{name}/{number % 7}", f"single {number}")["version"]

    with ThreadPoolExecutor(10) as pool:
        bundles, singles = pool.map(bundle, range(12)), pool.map(single, range(14))
        written = sum(map(len, bundles)) + len(list(singles))
    rows = [stack.versions_of(f"{name}/{number}") for number in range(7)]
    assert sum(map(len, rows)) == written == 12 * 5 + 14
    for number, found in enumerate(rows):
        assert [int(row["version"]) for row in found] == list(range(1, len(found) + 1))
        assert stack.verify(f"{name}/{number}") == {}


@pytest.fixture(scope="module")
def large(stack):
    """A thousand secrets under one prefix, put in bundles."""
    names = [f"{THOUSAND}/{number:04}" for number in range(LARGE)]

    def put(start):
        chunk = names[start : start + MOST]
        stack.done("put", prefix=THOUSAND, secrets={each: f"value of {each}" for each in chunk})

    with ThreadPoolExecutor(4) as pool:
        list(pool.map(put, range(0, LARGE, MOST)))
    return names


def test_a_bundle_of_a_thousand_is_read_whole(stack, large):
    expected = {each: f"value of {each}" for each in large}
    assert stack.done("get", prefix=THOUSAND, format="json") == expected
    assert stack.by_http("get", {"prefix": THOUSAND, "format": "json"}).body == expected
    found = stack.pages("get", "secrets", prefix=THOUSAND, limit=300)
    assert [each["name"] for each in found] == large
    assert {each["name"]: each["secret"] for each in found} == expected


def test_one_damaged_row_is_named_and_nothing_else_is_answered(stack, large):
    damaged = large[617]
    row = stack.row(damaged)
    stack.rows.put_item(Item={**row, "comment": "edited"})
    try:
        for request in ({"limit": 1000}, {"format": "json"}, {"format": "csv"}):
            for origin, answer in stack.both("get", {"prefix": THOUSAND, **request}):
                assert answer.code == "Integrity"
                # The operator finds it in the log, too.
                assert origin == "http" or damaged in answer.log
                assert f'"{damaged}"' in answer.message
                assert answer.message.count(f"{THOUSAND}/") == 1
                assert set(answer.body) == {"code", "message"}
    finally:
        stack.rows.put_item(Item=row)
    assert len(stack.done("get", prefix=THOUSAND, format="json")) == LARGE


def test_every_secret_that_cannot_be_given_is_named(stack, name):
    stack.put(f"{name}/fine", "s")
    stack.put(f"{name}/other context", "s", context={"a": "b"})
    stack.put(f"{name}/expired", "s", ttl=1)
    stack.put(f"{name}/moved", "s")
    stack.rows.put_item(Item={**stack.row(f"{name}/moved"), "name": f"{name}/here"})
    end = int(stack.row(f"{name}/expired")["expires_at"])
    while time.time() <= end:
        time.sleep(0.1)
    for origin, answer in stack.both("get", {"prefix": name}):
        assert answer.code == "Integrity"
        assert answer.status == (500 if origin == "http" else None)
        for bad in ("other context", "expired", "here"):
            assert f'"{name}/{bad}"' in answer.message
        for good in ("fine", "moved"):
            assert f'"{name}/{good}"' not in answer.message


def test_each_form_of_a_prefix_reads_what_it_says(stack, name):
    secrets = [name, f"{name}/a", f"{name}/b/c", f"{name}.d", f"{name}_e", f"{name}f"]
    secrets += [f"/{name}", f"/{name}/g"]
    for each in secrets:
        stack.put(each, "s")
    for prefix, expected in (
        (name, [name, f"{name}/a", f"{name}/b/c", f"{name}.d"]),
        (f"{name}/*", [f"{name}/a", f"{name}/b/c"]),
        (f"{name}_*", [f"{name}_e"]),
        (f"{name}*", secrets[:6]),
        (f"/{name}", secrets[6:]),
        (f"/{name}/*", secrets[7:]),
    ):
        for verb in ("get", "list"):
            for origin, answer in stack.both(verb, {"prefix": prefix}):
                assert answer.code == "OK", (verb, origin, prefix, answer)
                found = {entry["name"] for entry in answer.body["secrets"]}
                assert found == set(expected), (verb, origin, prefix)
    # The same with a slash at the end. The API may have no route for such a path.
    for verb in ("get", "list"):
        answer = stack.invoke(verb, {"prefix": f"{name}/"})
        found = {entry["name"] for entry in answer.body["secrets"]}
        assert found == {f"{name}/a", f"{name}/b/c"}
        by_http = stack.by_http(verb, {"prefix": f"{name}/"})
        assert by_http.status == 404 or by_http.body == answer.body
    names = [entry["name"] for entry in stack.pages("list", "secrets", prefix="/", limit=1000)]
    assert set(names) >= set(secrets[6:])
    assert all(each.startswith("/") for each in names)


def test_several_are_put_under_each_form_of_a_prefix(stack, name):
    for prefix, good, bad in (
        (f"{name}/*", f"{name}/a", f"{name}.a"),
        (f"{name}_*", f"{name}_a", f"{name}/a"),
        (f"/{name}", f"/{name}/a", f"{name}/a"),
    ):
        for _, answer in stack.both("put", {"prefix": prefix, "secrets": {good: "s"}}):
            assert answer.code == "OK", answer
        for _, answer in stack.both("put", {"prefix": prefix, "secrets": {bad: "s"}}):
            assert answer.code == "Invalid"
        assert len(stack.versions_of(good)) == 2
    assert stack.versions_of(f"{name}.a") == []


def test_everything_is_a_bundle_of_its_own(stack, name):
    """Page by page beside a listing, because other tests leave what cannot be opened."""
    stack.put(f"/{name}", "s")
    more, opened = {}, 0
    for number, page in enumerate(stack.each_page("list", limit=1)):
        (entry,) = page["secrets"]
        direct = stack.invoke("get", {"prefix": "*", "limit": 1, **more})
        by_http = stack.http("GET", "/bundle", query=urlencode({"limit": 1, **more}))
        for answer in (direct, by_http):
            if answer.code == "OK":
                assert [each["name"] for each in answer.body["secrets"]] == [entry["name"]]
                opened += 1
            else:
                plain = re.fullmatch(r"[\w/.-]+", entry["name"], flags=re.ASCII)
                assert not plain or f'"{entry["name"]}"' in answer.message
        if number == 20 or "next" not in page:
            break
        more = {"next": page["next"]}
    assert opened > 1


def test_a_document_of_nothing_is_not_found(stack, name):
    stack.put(f"{name}/a", "s", context={"app": "web"})
    for format_ in ("json", "dotenv", "env-file", "yaml", "csv"):
        for origin, answer in stack.both("get", {"prefix": f"{name}/typo", "format": format_}):
            assert answer.code == "NotFound"
            assert answer.status == (404 if origin == "http" else None)
        request = {"prefix": name, "format": format_, "only_context": True}
        assert stack.invoke("get", request).code == "NotFound"
    for _, answer in stack.both("get", {"prefix": f"{name}/typo"}):
        assert answer.body == {"secrets": []}


def test_what_was_throttled_gets_another_pass(stack, faults, name):
    stack.done("put", prefix=name, secrets={f"{name}/{n}": "s" for n in range(20)})
    # More than one pass makes with all of its tries.
    for call, count in (("kms:Decrypt", 90), ("dynamodb:Query", 90), ("dynamodb:Scan", 5)):
        faults.set(fault(call, "throttle", count=count))
        assert len(stack.done("get", prefix=name)["secrets"]) == 20


def test_secrets_of_several_contexts_are_one_bundle(stack, name):
    web, api = {"app": "web"}, {"app": "api", "stage": "prod"}
    stack.put(f"{name}/web/a", "1", context=web)
    stack.put(f"{name}/web/b", "2", context=api)
    stack.put(f"{name}/rest", "3", context={"a": "b"})
    contexts = [{"prefix": f"{name}/web", "context": web}, {"name": f"{name}/web/b", "context": api}]
    request = {"prefix": name, "contexts": contexts, "context": {"a": "b"}}
    for _, answer in stack.both("get", request):
        assert sorted(each["secret"] for each in answer.body["secrets"]) == ["1", "2", "3"]
    for _, answer in stack.both("get", {**request, "contexts": contexts[:1]}):
        assert answer.code == "Forbidden"
        assert f'"{name}/web/b"' in answer.message and f'"{name}/web/a"' not in answer.message
    for _, answer in stack.both("get", {**request, "contexts": contexts[:1], "only_context": True}):
        assert {each["secret"] for each in answer.body["secrets"]} == {"1", "3"}


def test_only_what_was_put_with_a_context_is_opened_if_that_is_asked(stack, kms, name):
    writer = Writer(kms, stack.key_arn)
    stack.put(f"{name}/web", "1", context={"app": "web"})
    stack.put(f"{name}/none", "2")
    stack.rows.put_item(Item=writer.row(f"{name}/old", "3"))
    for context, expected in (({"app": "web"}, {"1"}), ({}, {"2", "3"}), ({"app": "x"}, set())):
        for _, answer in stack.both(
            "get", {"prefix": name, "context": context, "only_context": True}
        ):
            assert {each["secret"] for each in answer.body["secrets"]} == expected
        for _, answer in stack.both("get", {"prefix": name, "context": context}):
            assert answer.code == "Forbidden"
    # What is damaged is no other context.
    stack.rows.put_item(Item={**stack.row(f"{name}/web"), "comment": "edited"})
    answer = stack.invoke("get", {"prefix": name, "context": {"app": "web"}, "only_context": True})
    assert answer.code == "Integrity" and f'"{name}/web"' in answer.message


def test_a_context_is_for_all_of_them(stack, name):
    for number in range(3):
        stack.put(f"{name}/{number}", "s", context={"app": "web"})
    for _, answer in stack.both("get", {"prefix": name, "context": {"app": "web"}}):
        assert [each["secret"] for each in answer.body["secrets"]] == ["s"] * 3
    assert stack.invoke("get", {"prefix": name}).code == "Forbidden"


def test_large_values_come_in_pages_and_as_no_document(stack, name):
    for number in range(12):
        stack.put(f"{name}/{number:02}", f"{number:02}" + '"' * 149_998)
    found = stack.pages("get", "secrets", prefix=name)
    assert [each["secret"][:2] for each in found] == [f"{number:02}" for number in range(12)]
    page = stack.by_http("get", {"prefix": name})
    assert page.status == 200 and "next" in page.body
    for _, answer in stack.both("get", {"prefix": name, "format": "json"}):
        assert answer.code == "TooLarge" and "`next`" in answer.message


@pytest.fixture(scope="module")
def odd(stack):
    prefix = "odd"
    secrets = {f"{prefix}/{key}": value for key, value in ODD.items()}
    stack.done("put", prefix=prefix, secrets=secrets)
    return prefix, secrets


def test_a_document_is_read_as_it_was_put_by_other_peoples_parsers(stack, odd):
    prefix, secrets = odd
    for _, answer in stack.both("get", {"prefix": prefix, "format": "json"}):
        assert answer.body == secrets
    for format_, media, read in (
        ("yaml", "application/yaml", yaml.safe_load),
        ("csv", "text/csv; charset=utf-8", lambda text: dict(csv.reader(io.StringIO(text, newline="")))),
    ):
        direct = stack.done("get", prefix=prefix, format=format_)
        http = stack.by_http("get", {"prefix": prefix, "format": format_})
        assert http.body.decode() == direct
        assert http.headers["content-type"] == media
        assert http.headers["cache-control"] == "no-store"
        assert read(direct) == secrets


def test_values_that_are_no_text_have_no_place_in_a_document(stack, name):
    stack.put(f"{name}/text", "s")
    stack.put(f"{name}/bytes", secret_base64="/w==")
    for format_ in ("json", "yaml", "csv", "dotenv", "env-file"):
        answer = stack.invoke("get", {"prefix": name, "format": format_})
        assert answer.code == "Invalid"
        assert f'"{name}/bytes"' in answer.message and "text" in answer.message
    assert len(stack.done("get", prefix=name)["secrets"]) == 2


@pytest.mark.parametrize(
    "fields",
    [{"format": "text"}, {"format": "xml"}, {"format": "json", "limit": 5}, {"version": 1},
     {"format": "csv", "next": "e30"}, {"limit": 0}, {"limit": 1001}, {"name": "n"},
     {"next": "e30"}, {"prefix": "a//b"}, {"prefix": "a\nb"}, {"prefix": ""},
     {"uppercase": False}, {"format": "json", "uppercase": True}, {"only_context": 1},
     {"contexts": {}}, {"contexts": "[]"}, {"contexts": [{"context": {}}]},
     {"contexts": [{"name": "a", "prefix": "a", "context": {}}]},
     {"contexts": [{"name": "a", "context": {}}] * 2},
     {"contexts": [{"name": f"a{n}", "context": {}} for n in range(1001)]}],
    ids=lambda fields: str(fields)[:60],
)
def test_a_request_for_a_bundle_that_cannot_be_is_refused(stack, name, fields):
    assert stack.invoke("get", {"prefix": name, **fields}).code == "Invalid"


def test_a_caller_reaches_the_bundle_that_the_path_in_its_policy_covers(stack, caller, name):
    stack.put(f"{name}/a", "s")
    stack.put(f"{name}-other", "s")
    reader = caller(f"GET/bundle/{name}")
    got = stack.by_http("get", {"prefix": name}, credentials=reader)
    assert [each["name"] for each in got.body["secrets"]] == [f"{name}/a"]
    body = {"secrets": {f"{name}/a": "x"}}
    for method, path, query, sent in (
        ("GET", f"/bundle/{name}-other", "", None),
        ("GET", f"/bundle/{name}/a", "", None),
        ("GET", f"/secrets/{name}/a", "", None),
        ("PUT", f"/bundle/{name}", "", body),
    ):
        answer = stack.http(method, path, query=query, body=sent, credentials=reader)
        assert answer.status == 403, (method, path)
    # Neither query nor body moves a request to another place than its path.
    for method, path, query, sent in (
        ("GET", f"/bundle/{name}", "prefix=secret", None),
        ("GET", f"/bundle/{name}", "name=" + quote(f"{name}-other", safe=""), None),
    ):
        answer = stack.http(method, path, query=query, body=sent, credentials=reader)
        assert answer.status == 400
    # What is behind a slash reaches no further than the slash.
    stack.put(f"{name}.b", "s")
    below = caller(f"GET/bundle/{name}/*")
    got = stack.by_http("get", {"prefix": f"{name}/*"}, credentials=below)
    assert [each["name"] for each in got.body["secrets"]] == [f"{name}/a"]
    for path in (f"/bundle/{name}", f"/bundle/{name}*", f"/bundle/{name}.*", "/bundle", "/bundle/*"):
        assert stack.http("GET", path, credentials=below).status == 403, path
    everything = caller("GET/bundle")
    assert stack.http("GET", "/bundle", query="limit=1", credentials=everything).status != 403
    assert stack.http("GET", f"/bundle/{name}", credentials=everything).status == 403
    writer = caller(f"PUT/bundle/{name}")
    for sent in (
        {"secrets": {f"{name}-other": "x"}},
        {"secrets": [{"name": f"{name}/../other", "secret": "x"}, {"name": "other", "secret": "x"}]},
        {**body, "prefix": "other"},
        {**body, "name": "other"},
    ):
        answer = stack.http("PUT", f"/bundle/{name}", body=sent, credentials=writer)
        assert answer.status == 400, sent
    assert len(stack.versions_of(f"{name}-other")) == 1
    assert stack.http("PUT", f"/bundle/{name}", body=body, credentials=writer).status == 200
