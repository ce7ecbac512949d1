"""Odd and invalid names: in requests, in paths and in queries."""

import json
import urllib.parse
from typing import Any

import pytest

from conftest import Stack
from planted import PLANTED, assert_not_logged


def test_the_name_comes_from_the_path_only(stack: Stack, name: str) -> None:
    """Otherwise, permission for `/names` would let a caller read the versions of any secret."""
    stack.put(name, "s")
    query = urllib.parse.urlencode({"name": name})
    for response in (
        stack.http("GET", "/names", query=query),
        stack.http("GET", "/names", body={"name": name}),
        stack.http("GET", f"/names/{name}", query=query),
        stack.http("GET", f"/versions/{name}", query=query),
        stack.http("GET", f"/secrets/{name}", query=query),
    ):
        assert (response.status, response.code) == (400, "Invalid")


NAMES = [
    *("..", ".", "a/../b", "a/./b", "../../etc/passwd", "a b", "it's", 'say "hi"', "a\\b"),
    *("a#b", "a&b=c", "a+b", "a;b", "{name}", "$default", "ключ/鍵/🔑", "é", "é"),
    *("<script>", "a:b", "a@b", "a,b", "*", "a*", "null", "x" * 512, "/a", "/prod/db", "~a", "a/~"),
]


@pytest.mark.parametrize("odd_name", NAMES, ids=lambda text: ascii(text)[:24])
def test_an_odd_name_identifies_exactly_one_secret(stack: Stack, odd_name: str) -> None:
    value = f"value of {odd_name[:20]}"
    before = stack.versions_of(odd_name)
    stack.put(odd_name, value)
    assert len(stack.versions_of(odd_name)) == len(before) + 1
    assert stack.get(odd_name)["secret"] == value
    path = f"~{odd_name}" if odd_name.startswith("/") else odd_name
    path = urllib.parse.quote(path, safe="/-_.~")
    response = stack.http("GET", f"/secrets/{path}", quote=False)
    assert response.status == 200, response
    assert (response.body["name"], response.body["secret"]) == (odd_name, value)
    for other in (path.replace(".", "%2E"), path.replace("/", "%2F")):
        response = stack.http("GET", f"/secrets/{other}", quote=False)
        # An API that decodes the path makes them equal. Otherwise the encoding is refused.
        if response.status == 200:
            assert (response.body["name"], response.body["secret"]) == (odd_name, value)
        else:
            assert (response.status, response.code) == (400, "Malformed")
    put = stack.by_http("put", {"name": odd_name, "secret": "by http"})
    assert put.body["name"] == odd_name
    assert stack.get(odd_name)["secret"] == "by http"


@pytest.mark.parametrize(
    "invalid_name",
    [
        "",
        "/",
        "/a/",
        "a/",
        "a//b",
        "a\nb",
        "a\tb",
        "\x00",
        "a\x7fb",
        "\u0085",
        "x" * 513,
        "ä" * 257,
        "/policies",
        "/rotation",
        "/rotation/a",
        "/token",
        "/token/a/b",
    ],
    ids=lambda text: ascii(text)[:24],
)
def test_an_invalid_name_is_refused(stack: Stack, invalid_name: str) -> None:
    requests: list[tuple[str, dict[str, str]]] = [
        ("put", {"secret": PLANTED}),
        ("get", {}),
        ("list", {}),
    ]
    for verb, fields in requests:
        response = stack.invoke(verb, {"name": invalid_name, **fields})
        assert response.code == "Invalid", (verb, response)
        assert PLANTED not in json.dumps(response.body) + response.log
    if invalid_name not in ("", "/"):
        response = stack.by_http("put", {"name": invalid_name, "secret": PLANTED})
        # The API has no route for a path with a line feed or a trailing slash, and its signature
        # does not match if the path has two slashes in a row.
        by_api = response.status in (403, 404) and set(invalid_name) & set("/\n")
        assert response.status == 400 or by_api
        assert stack.versions_of(invalid_name) == []
        assert PLANTED not in json.dumps(response.body, default=repr)


@pytest.mark.parametrize("end", ["?b=c", "%2Fb", "%", "%00", "%25", "%2525", "?"])
def test_a_name_that_a_path_cannot_contain_works_by_direct_invoke_only(
    stack: Stack, name: str, end: str
) -> None:
    """An HTTP API decodes a path more than once, and cuts it at `%3F`."""
    odd_name = f"{name}{end}"
    stack.put(odd_name, PLANTED)
    assert stack.get(odd_name)["secret"] == PLANTED
    quoted = urllib.parse.quote(f"/secrets/{odd_name}", safe="/-_.~")
    for path in (quoted, quoted.replace("%", "%25")):
        for method, body in (("GET", None), ("PUT", {"secret": "x"}), ("DELETE", None)):
            response = stack.http(method, path, body=body, quote=False)
            assert PLANTED not in json.dumps(response.body, default=repr), (method, path)
            if response.status == 200:
                assert response.body["name"] != odd_name
    assert len(stack.versions_of(odd_name)) == 1
    assert stack.get(odd_name)["secret"] == PLANTED


@pytest.mark.parametrize("route", ["secrets", "bundle", "names", "versions", "history"])
def test_a_path_with_an_invalid_name_is_refused_with_the_correct_form(
    stack: Stack, name: str, route: str
) -> None:
    for path in (f"/{route}/%2F{name}", f"/{route}/{name}%2F%2Fa", f"/{route}/~"):
        response = stack.http("GET", path, quote=False)
        assert (response.status, response.code) == (400, "Invalid"), path
        assert "~/prod/db" in response.message
    for path in (f"/{route}/{name}%2525", f"/{route}/{name}%07", f"/{route}/{name}%7F"):
        response = stack.http("GET", path, quote=False)
        assert response.status == 400, path


def test_the_prefix_comes_from_the_path_only(stack: Stack, name: str) -> None:
    stack.put(name, "s")
    secrets = {f"{name}/a": "s"}
    quoted = urllib.parse.quote(name, safe="")
    for method, path, query, body in [
        ("GET", "/bundle", f"prefix={quoted}", None),
        ("GET", "/names", f"prefix={quoted}", None),
        ("GET", f"/secrets/{name}", "prefix=%2A", None),
        ("GET", f"/names/{name}", f"name={quoted}", None),
        ("PUT", f"/secrets/{name}", "", {"prefix": name, "secrets": secrets}),
        ("PUT", f"/bundle/{name}", "", {"prefix": name, "secrets": secrets}),
    ]:
        response = stack.http(method, path, query=query, body=body)
        assert (response.status, response.code) == (400, "Invalid"), path
        assert "path" in response.message


@pytest.mark.parametrize("invalid_name", [1, None, True, ["a"], {"a": "b"}], ids=str)
def test_a_name_of_another_type_is_refused(stack: Stack, invalid_name: Any) -> None:
    for verb in ("put", "get", "list"):
        assert stack.invoke(verb, {"name": invalid_name}).code == "Invalid"


def test_a_path_that_is_not_utf_8_is_refused(stack: Stack) -> None:
    for path in ("/secrets/a%FF", "/secrets/%C3%28"):
        response = stack.http("PUT", path, body={"secret": PLANTED}, quote=False)
        assert (response.status, response.code) == (400, "Malformed")


def test_an_invalid_query_is_refused(stack: Stack, name: str) -> None:
    stack.put(name, "s")
    for query in ("version=1&version=1", "version=1&name=x", "context.a=1&context.a=2", "x=1"):
        assert stack.http("GET", f"/secrets/{name}", query=query).code == "Invalid", query
    # Sent by direct invoke, because the local AWS cannot verify the signature of such a query.
    request = {
        "version": "2.0",
        "routeKey": "GET /secrets/{name+}",
        "rawPath": f"/secrets/{name}",
        "rawQueryString": "stage=%FF",
        "pathParameters": {"name": name},
        "requestContext": {"http": {"method": "GET"}},
    }
    returned = stack.done("get", **request)
    assert (returned["statusCode"], json.loads(returned["body"])["code"]) == (400, "Malformed")
    response = stack.http("PUT", f"/secrets/{name}", query=f"secret={PLANTED}", body={})
    assert response.code == "Invalid"
    assert len(stack.versions_of(name)) == 1


def test_no_planted_value_is_in_any_log(stack: Stack) -> None:
    """Runs after the tests above and reads every log."""
    assert_not_logged(stack)
