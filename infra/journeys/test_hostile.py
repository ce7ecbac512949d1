"""Input that means harm or is just wrong: the right error, no change, and nothing said back."""

import base64
import json
import urllib.parse

import pytest

PLANTED = "pl4nted-s3cret-9f81"


def quiet(stack, name, answer):
    """Nothing of what was sent is in the answer or the log, and nothing was written."""
    assert PLANTED not in json.dumps(answer.body, default=repr)
    assert PLANTED not in answer.log
    assert PLANTED not in json.dumps(answer.headers or {})
    assert stack.versions_of(name) == []


BODIES = {
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
    "a name given again": (b'{"name":"x","secret":"%s"}' % PLANTED.encode(), "Invalid"),
    "deep": (b'{"secret":%s%s}' % (b"[" * 100_000, b"]" * 100_000), "Invalid"),
    "deep and open": (b'{"secret":' + b"[" * 100_000, "Malformed"),
    "deep objects": (b'{"context":' + b'{"a":' * 50_000 + b"1" + b"}" * 50_000 + b"}", "Invalid"),
}


@pytest.mark.parametrize("kind", BODIES)
def test_a_body_that_is_no_request(stack, name, kind):
    body, code = BODIES[kind]
    answer = stack.http("PUT", f"/secrets/{name}", body=body)
    if code:
        assert (answer.code, answer.status) == (code, 400)
        quiet(stack, name, answer)
    # The same bytes as application/octet-stream reach the function in base64. What is no UTF-8 the
    # API hands on as text with replacement characters, so only this way tells.
    name = f"{name}/bytes"
    answer = stack.http(
        "PUT", f"/secrets/{name}", body=body, headers={"content-type": "application/octet-stream"}
    )
    assert (answer.code, answer.status) == (code or "Malformed", 400)
    quiet(stack, name, answer)


REQUESTS = {
    "no value": {},
    "an unknown field": {"secret": PLANTED, PLANTED: 1},
    "two values": {"secret": PLANTED, "secret_base64": "eA=="},
    "a value and rules": {"secret": PLANTED, "generate": {}},
    "a value that is no text": {"secret": {"value": PLANTED}},
    "a value of numbers": {"secret": [1, PLANTED]},
    "a null value": {"secret": None},
    "no base64": {"secret_base64": PLANTED},
    "base64 without padding": {"secret_base64": "cGw0bnRlZA"},
    "base64 of a URL": {"secret_base64": "_-8="},
    "version 0": {"secret": PLANTED, "version": 0},
    "version 10^19": {"secret": PLANTED, "version": 10**19},
    "version 10^30": {"secret": PLANTED, "version": 10**30},
    "version -1": {"secret": PLANTED, "version": -1},
    "version 1.5": {"secret": PLANTED, "version": 1.5},
    "a version in words": {"secret": PLANTED, "version": PLANTED},
    "a context that is no map": {"secret": PLANTED, "context": PLANTED},
    "a context of numbers": {"secret": PLANTED, "context": {PLANTED: 1}},
    "a context with an empty key": {"secret": PLANTED, "context": {"": PLANTED}},
    "a context beyond KMS": {"secret": PLANTED, "context": {PLANTED: "x" * 8192}},
    "a wide context beyond KMS": {
        "secret": PLANTED,
        "context": {f"key {n}": "x" * 20 for n in range(500)},
    },
    "a comment that is no text": {"secret": PLANTED, "comment": [PLANTED]},
    "a time to live in words": {"secret": PLANTED, "ttl": PLANTED},
    "an expiry in words": {"secret": PLANTED, "expires_at": PLANTED},
    "rules in words": {"generate": PLANTED},
    "an unknown rule": {"generate": {PLANTED: True}},
}


@pytest.mark.parametrize("kind", REQUESTS)
def test_a_request_that_breaks_a_rule(stack, name, kind):
    for origin, answer in stack.both("put", {"name": name, **REQUESTS[kind]}):
        assert answer.code == "Invalid", (origin, answer)
        assert answer.status == (400 if origin == "http" else None)
        quiet(stack, name, answer)


@pytest.mark.parametrize(
    "request_",
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
def test_a_get_that_breaks_a_rule(stack, name, request_):
    for origin, answer in stack.both("get", {"name": name, **request_}):
        assert answer.code == "Invalid", (origin, answer)
        quiet(stack, name, answer)


@pytest.mark.parametrize(
    "request_",
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
def test_a_list_that_breaks_a_rule(stack, request_):
    answers = [stack.invoke("list", request_)]
    if "prefix" not in request_ and "name" not in request_:
        answers.append(stack.by_http("list", request_))
    for answer in answers:
        assert answer.code == "Invalid"
        assert PLANTED not in json.dumps(answer.body) + answer.log


def test_a_name_comes_from_the_path_alone(stack, name):
    """Or a policy for /names would let its holder read the versions of anything."""
    stack.put(name, "s")
    query = urllib.parse.urlencode({"name": name})
    for answer in (
        stack.http("GET", "/names", query=query),
        stack.http("GET", "/names", body={"name": name}),
        stack.http("GET", f"/names/{name}", query=query),
        stack.http("GET", f"/versions/{name}", query=query),
        stack.http("GET", f"/secrets/{name}", query=query),
    ):
        assert (answer.status, answer.code) == (400, "Invalid")


NAMES = [
    *("..", ".", "a/../b", "a/./b", "../../etc/passwd", "a b", "it's", 'say "hi"', "a\\b"),
    *("a#b", "a&b=c", "a+b", "a;b", "{name}", "$default", "ключ/鍵/🔑", "é", "é"),
    *("<script>", "a:b", "a@b", "a,b", "*", "a*", "null", "x" * 512, "/a", "/prod/db", "~a", "a/~"),
]


@pytest.mark.parametrize("odd", NAMES, ids=lambda text: ascii(text)[:24])
def test_an_odd_name_is_one_name_and_no_other(stack, odd):
    value = f"value of {odd[:20]}"
    before = stack.versions_of(odd)
    stack.put(odd, value)
    assert len(stack.versions_of(odd)) == len(before) + 1
    assert stack.get(odd)["secret"] == value
    path = f"~{odd}" if odd.startswith("/") else odd
    path = urllib.parse.quote(path, safe="/-_.~")
    got = stack.http("GET", f"/secrets/{path}", quote=False)
    assert got.status == 200, got
    assert (got.body["name"], got.body["secret"]) == (odd, value)
    for other in (path.replace(".", "%2E"), path.replace("/", "%2F")):
        got = stack.http("GET", f"/secrets/{other}", quote=False)
        # An API that passes a path on decoded makes them one; another encoding is refused.
        if got.status == 200:
            assert (got.body["name"], got.body["secret"]) == (odd, value)
        else:
            assert (got.status, got.code) == (400, "Malformed")
    put = stack.by_http("put", {"name": odd, "secret": "by http"})
    assert put.body["name"] == odd
    assert stack.get(odd)["secret"] == "by http"


@pytest.mark.parametrize(
    "bad",
    ["", "/", "/a/", "a/", "a//b", "a\nb", "a\tb", "\x00", "a\x7fb", "\u0085", "x" * 513, "ä" * 257,
     "/policies", "/rotation", "/rotation/a", "/token", "/token/a/b"],
    ids=lambda text: ascii(text)[:24],
)
def test_a_name_that_is_none(stack, bad):
    for verb, more in (("put", {"secret": PLANTED}), ("get", {}), ("list", {})):
        answer = stack.invoke(verb, {"name": bad, **more})
        assert answer.code == "Invalid", (verb, answer)
        assert PLANTED not in json.dumps(answer.body) + answer.log
    if bad not in ("", "/"):
        answer = stack.by_http("put", {"name": bad, "secret": PLANTED})
        # For a path that ends in a slash or has a line feed in it the API itself has no route, and
        # of two slashes in a row one is not signed.
        by_api = answer.status in (403, 404) and set(bad) & set("/\n")
        assert answer.status == 400 or by_api
        assert stack.versions_of(bad) == []
        assert PLANTED not in json.dumps(answer.body, default=repr)


@pytest.mark.parametrize("end", ["?b=c", "%2Fb", "%", "%00", "%25", "%2525", "?"])
def test_a_name_that_a_path_may_not_carry_works_by_invoke_alone(stack, name, end):
    """An HTTP API decodes more than once, and cuts a path at %3F."""
    odd = f"{name}{end}"
    stack.put(odd, PLANTED)
    assert stack.get(odd)["secret"] == PLANTED
    quoted = urllib.parse.quote(f"/secrets/{odd}", safe="/-_.~")
    for path in (quoted, quoted.replace("%", "%25")):
        for method, body in (("GET", None), ("PUT", {"secret": "x"}), ("DELETE", None)):
            answer = stack.http(method, path, body=body, quote=False)
            assert PLANTED not in json.dumps(answer.body, default=repr), (method, path)
            if answer.status == 200:
                assert answer.body["name"] != odd
    assert len(stack.versions_of(odd)) == 1
    assert stack.get(odd)["secret"] == PLANTED


@pytest.mark.parametrize("place", ["secrets", "bundle", "names", "versions", "history"])
def test_a_path_that_is_no_name_is_refused_with_the_way_to_write_it(stack, name, place):
    for path in (f"/{place}/%2F{name}", f"/{place}/{name}%2F%2Fa", f"/{place}/~"):
        answer = stack.http("GET", path, quote=False)
        assert (answer.status, answer.code) == (400, "Invalid"), path
        assert "~/prod/db" in answer.message
    for path in (f"/{place}/{name}%2525", f"/{place}/{name}%07", f"/{place}/{name}%7F"):
        answer = stack.http("GET", path, quote=False)
        assert answer.status == 400, path


def test_the_path_alone_says_whose_secrets_are_meant(stack, name):
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
        answer = stack.http(method, path, query=query, body=body)
        assert (answer.status, answer.code) == (400, "Invalid"), path
        assert "path" in answer.message


@pytest.mark.parametrize("bad", [1, None, True, ["a"], {"a": "b"}], ids=str)
def test_a_name_of_another_type(stack, bad):
    for verb in ("put", "get", "list"):
        assert stack.invoke(verb, {"name": bad}).code == "Invalid"


@pytest.mark.parametrize("payload", [b"[]", b"1", b'"text"', b"null", b"true"], ids=str)
def test_a_payload_that_is_no_object(stack, payload):
    for verb in ("put", "get", "list"):
        answer = stack.invoke(verb, payload)
        assert answer.code == "Invalid" or (verb == "list" and payload == b"null"), answer


def test_an_escape_that_is_no_utf_8_is_no_name(stack):
    for path in ("/secrets/a%FF", "/secrets/%C3%28"):
        answer = stack.http("PUT", path, body={"secret": PLANTED}, quote=False)
        assert (answer.status, answer.code) == (400, "Malformed")


def test_a_query_is_read_strictly(stack, name):
    stack.put(name, "s")
    for query in ("version=1&version=1", "version=1&name=x", "context.a=1&context.a=2", "x=1"):
        assert stack.http("GET", f"/secrets/{name}", query=query).code == "Invalid", query
    # As an event: no signature of such a query is verified locally.
    event = {
        "version": "2.0",
        "routeKey": "GET /secrets/{name+}",
        "rawPath": f"/secrets/{name}",
        "rawQueryString": "stage=%FF",
        "pathParameters": {"name": name},
        "requestContext": {"http": {"method": "GET"}},
    }
    answer = stack.done("get", **event)
    assert (answer["statusCode"], json.loads(answer["body"])["code"]) == (400, "Malformed")
    url = stack.http("PUT", f"/secrets/{name}", query=f"secret={PLANTED}", body={})
    assert url.code == "Invalid"
    assert len(stack.versions_of(name)) == 1


def test_a_megabyte_is_too_large_and_leaves_no_trace(stack, name):
    secret = PLANTED * (2**20 // len(PLANTED))
    for origin, answer in stack.both("put", {"name": name, "secret": secret}):
        assert answer.code == "TooLarge"
        quiet(stack, name, answer)


WIDE = {
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
def test_what_would_take_a_hundred_times_its_size_is_refused(stack, name, kind):
    """The function has 256 MB: what is read beyond a limit would take them."""
    for origin, answer in stack.both("put", {"prefix": name, **WIDE[kind]}):
        assert answer.code in ("Invalid", "TooLarge"), (origin, answer)
        assert answer.status in ((400, 413) if origin == "http" else (None,))
        quiet(stack, name, answer)
    # The process that refused it is still there.
    stack.put(name, "s")


def test_an_import_tells_which_of_its_entries_are_wrong(stack, name):
    secrets = [{"name": f"{name}/{n}", "secret": "s"} for n in range(50)]
    secrets[3]["secret"] = {"value": PLANTED}
    secrets[17]["name"] = f"{name}//{PLANTED}"
    secrets[37]["secret_base64"] = PLANTED
    secrets[41]["name"] = f"other/{PLANTED}"
    secrets[49]["name"] = f"{name}/0"
    for _, answer in stack.both("put", {"prefix": name, "secrets": secrets}):
        assert answer.code == "Invalid"
        for place in (3, 17, 37, 41, 49):
            assert f'"secrets[{place}]"' in answer.message
        assert '"secrets[0]"' not in answer.message
        quiet(stack, name, answer)
    secrets[20] = PLANTED
    for _, answer in stack.both("put", {"prefix": name, "secrets": secrets}):
        assert answer.code == "Invalid" and '"secrets[20]"' in answer.message
        quiet(stack, name, answer)
    assert stack.done("get", prefix=name) == {"secrets": []}


def test_base64_in_lines_is_read(stack, name):
    """As `base64 file` prints it."""
    octets = bytes(range(256))
    request = {"name": name, "secret_base64": base64.encodebytes(octets).decode()}
    for _, answer in stack.both("put", request):
        assert answer.code == "OK"
        got = stack.get(name)
        assert base64.b64decode(got["secret_base64"]) == octets


def test_a_forged_event_with_many_headers_is_read_or_refused(stack, name):
    """A map of headers has a limit beyond which it panics, and with it the process."""
    stack.put(name, "s")
    event = {
        "version": "2.0",
        "requestContext": {"http": {"method": "GET"}},
        "headers": {f"x-{n}": "v" for n in range(50_000)},
        "pathParameters": {"name": name},
    }
    answer = stack.invoke("get", event)
    assert (answer.code, answer.body["statusCode"]) == ("OK", 200)
    event = {**event, "headers": {}, "pathParameters": {f"p{n}": "v" for n in range(50_000)}}
    assert stack.invoke("get", event).body["statusCode"] == 400


def test_a_forged_http_event_gains_nothing(stack, name):
    """Whoever may invoke a function can say what they like about themselves; it opens nothing."""
    event = {
        "version": "2.0",
        "requestContext": {"http": {"method": "GET"}, "authorizer": {"iam": {"userArn": "root"}}},
        "pathParameters": {"name": name},
    }
    answer = stack.invoke("get", event)
    assert (answer.code, answer.body["statusCode"]) == ("OK", 404)
    for context in (1, None, {}, "x"):
        answer = stack.invoke("get", {"requestContext": context, "name": name})
        assert json.loads(answer.body["body"])["code"] == "Malformed"


def test_wrong_missing_and_superfluous_contexts_are_forbidden(stack, name):
    stack.put(name, "s", context={"app": PLANTED, "stage": f"{PLANTED}-2"})
    for context in (
        {},
        {"app": PLANTED},
        {"app": PLANTED, "stage": "other"},
        {"app": PLANTED, "stage": f"{PLANTED}-2", "more": "x"},
        {"APP": PLANTED, "stage": f"{PLANTED}-2"},
    ):
        for origin, answer in stack.both("get", {"name": name, "context": context}):
            assert answer.code == "Forbidden"
            assert answer.status == (403 if origin == "http" else None)
            assert '"app"' in answer.message and '"stage"' in answer.message
            assert PLANTED not in answer.message + answer.log
    stack.put(name, "s")
    for _, answer in stack.both("get", {"name": name, "context": {"app": "x"}}):
        assert answer.code == "Forbidden"
        assert "without encryption context" in answer.message


def test_a_wrong_context_of_a_legacy_row_is_forbidden(stack, credstash, name):
    assert credstash("put", "-k", stack.key_arn, name, "s", "app=web")[0] == 0
    for context in ({}, {"app": "other"}):
        for _, answer in stack.both("get", {"name": name, "context": context}):
            assert answer.code == "Forbidden"
            assert "legacy" in answer.message


def test_no_planted_byte_is_in_any_log(stack):
    """After all of the above, in all of the logs."""
    lines = stack.logs()
    assert '"operation":"put"' in lines
    assert PLANTED not in lines
    for offset in range(3):  # nor in base64, wherever in a body it may begin
        encoded = base64.b64encode(b"-" * offset + PLANTED.encode()).decode()
        assert encoded[4:-4] not in lines
