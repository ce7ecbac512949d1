"""Every operation by direct invoke and by HTTP: the samples in `events/`; put, get and list."""

import base64
import json
import string
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

import rotation
from conftest import ROOT, Stack
from seal import seal_of

# The order of the samples: put, get and list come before delete, and restore comes after it.
VERBS = (
    *("put", "get", "list", "remind", "policy", "rotate", "rewrap", "reseal", "renew"),
    *("delete", "restore"),
)
# A policy is put before it is cancelled.
SAMPLES = sorted(
    (ROOT / "events").glob("*.json"),
    key=lambda path: (VERBS.index(path.stem.split("-")[0]), "cancel" in path.stem, path),
)


@pytest.mark.parametrize("path", SAMPLES, ids=lambda path: path.stem)
def test_every_sample_request_succeeds(stack: Stack, path: Path) -> None:
    request = json.loads(path.read_text())
    if path.stem.startswith("list-report"):
        rotation.run(stack, "renew")
    response = stack.invoke(path.stem.split("-")[0], request)
    assert response.code == "OK"
    content = response.body
    if "requestContext" in request:
        assert response.body["statusCode"] == 200
        assert response.body["headers"]["cache-control"] == "no-store"
        content = response.body["body"]
        if "json" in response.body["headers"]["content-type"]:
            content = json.loads(content)
    match path.stem.rsplit("-", 1)[0]:
        case "get":
            assert content["secret"] == "correct horse battery staple"
        case "get-bundle":
            found = content if isinstance(content, str) else json.dumps(content["secrets"])
            assert "staple" in found
        case "list-history":
            assert content.get("whole") or content["events"][-1]["operation"] == "put"
        case "list" | "list-versions":
            entries = content.get("versions") or content["secrets"]
            contexts = [entry["context"] for entry in entries if "context" in entry]
            assert {"app": "web"} in contexts
            assert all(entry["name"].startswith("dev/") for entry in entries)
        case "delete" | "restore":
            assert 1 in content["versions"]
        case "policy":
            assert content["next_rotation_at"] > content.get("last_rotated_at", "")
        case "policy-cancel":
            assert content == {"name": "dev/db/password"}
        case "renew":
            assert content["version"] > 1
        case "rotate" | "rewrap" | "reseal":
            assert content["action"] == "renew" or content["failed"] == 0
        case "list-report":
            assert content["state"] == "done"


def test_text_can_be_put_and_read_by_http_and_by_direct_invoke(stack: Stack, name: str) -> None:
    for number, secret in enumerate(["pass", "pässword 鍵 🔑\n", "x", "", "y" * 65536], 1):
        responses = [stack.invoke("put", {"name": name, "secret": secret})]
        responses.append(stack.by_http("put", {"name": name, "secret": secret}))
        for offset, response in enumerate(responses):
            assert response.code == "OK"
            assert response.body["name"] == name
            assert response.body["version"] == 2 * number - 1 + offset
        for version in (2 * number - 1, 2 * number):
            for _, response in stack.both("get", {"name": name, "version": version}):
                assert response.body["secret"] == secret
                assert response.body["version"] == version
                assert "secret_base64" not in response.body


def test_binary_values_are_returned_as_base64(stack: Stack, name: str) -> None:
    secret = bytes(range(256))
    stack.put(name, secret_base64=base64.b64encode(secret).decode())
    for _, response in stack.both("get", {"name": name}):
        assert base64.b64decode(response.body["secret_base64"]) == secret
        assert "secret" not in response.body
    bare = stack.by_http("get", {"name": name, "format": "text"})
    assert (bare.body, bare.headers["content-type"]) == (secret, "application/octet-stream")
    assert stack.invoke("get", {"name": name, "format": "text"}).code == "Invalid"
    assert stack.row(name)["binary"] is True


def test_bytes_that_are_utf8_are_returned_as_text(stack: Stack, name: str) -> None:
    stack.put(name, secret_base64=base64.b64encode("schlüssel".encode()).decode())
    assert stack.get(name)["secret"] == "schlüssel"
    assert "binary" not in stack.row(name)


def test_format_text_returns_the_bare_value(stack: Stack, name: str) -> None:
    stack.put(name, "pässword\n")
    assert stack.get(name, format="text") == "pässword\n"
    bare = stack.by_http("get", {"name": name, "format": "text"})
    assert bare.body == "pässword\n".encode()
    assert bare.headers["content-type"] == "text/plain; charset=utf-8"
    assert bare.headers["cache-control"] == "no-store"


def test_generated_values_follow_their_rules(stack: Stack, name: str) -> None:
    rules = {
        "length": 64,
        "exclude_characters": "abcXYZ019!",
        "exclude_punctuation": True,
        "require_each_included_type": True,
    }
    put = stack.put(name, generate=rules)
    assert set(put) == {"name", "version", "revision"}
    value = stack.get(name)["secret"]
    assert len(value) == 64
    assert set(value) <= set(string.ascii_letters + string.digits) - set("abcXYZ019!")
    for kind in (string.ascii_lowercase, string.ascii_uppercase, string.digits):
        assert set(value) & set(kind)
    stack.put(name, generate={})
    assert len(stack.get(name)["secret"]) == 32
    stack.put(name, generate={"length": 4096})
    assert len(stack.get(name)["secret"]) == 4096


@pytest.mark.parametrize(
    "rules",
    [
        {"length": 0},
        {"length": 4097},
        {"length": "long"},
        {"length": 3, "require_each_included_type": True},
        {"exclude_lowercase": 1},
        {"exclude_characters": string.printable},
        {"exclude_characters": "0" * 257},
        {"exclude_characters": string.digits, "require_each_included_type": True},
        {"length": 3},
        {"template": "{}"},
        {"template": "[]", "key": "password"},
        {"symbols": True},
        [],
        32,
    ],
    ids=lambda rules: str(rules)[:80],
)
def test_rules_that_cannot_be_satisfied_are_refused(stack: Stack, name: str, rules: Any) -> None:
    for _, response in stack.both("put", {"name": name, "generate": rules}):
        assert response.code == "Invalid"
    assert stack.versions_of(name) == []


def test_get_returns_the_documented_fields(stack: Stack, name: str) -> None:
    expires = datetime.now(UTC).replace(microsecond=0) + timedelta(days=1)
    put = stack.put(name, "s", comment="why", expires_at=expires.isoformat(), context={"a": "b"})
    for _, response in stack.both("get", {"name": name, "context": {"a": "b"}}):
        created = datetime.fromisoformat(response.body.pop("created_at"))
        assert abs((datetime.now(UTC) - created).total_seconds()) < 60
        assert datetime.fromisoformat(response.body.pop("expires_at")) == expires
        assert response.body == {
            "name": name,
            "version": 1,
            "revision": put["revision"],
            "secret": "s",
            "comment": "why",
            "stages": ["AWSCURRENT"],
        }


def test_get_selects_by_version_revision_and_stage(stack: Stack, name: str) -> None:
    revisions = [stack.put(name, f"value {number}")["revision"] for number in (1, 2, 3)]
    assert len(set(revisions)) == 3
    stages = {1: [], 2: ["AWSPREVIOUS"], 3: ["AWSCURRENT"]}
    for number, revision in enumerate(revisions, 1):
        for request in ({"version": number}, {"version": str(number)}, {"revision": revision}):
            for _, response in stack.both("get", {"name": name, **request}):
                assert response.body["secret"] == f"value {number}"
                assert response.body["revision"] == revision
                if "version" in request:
                    assert response.body["stages"] == stages[number]
    for stage, number in {"AWSCURRENT": 3, "AWSPREVIOUS": 2}.items():
        for _, response in stack.both("get", {"name": name, "stage": stage}):
            assert (response.body["version"], response.body["stages"]) == (number, [stage])


def test_a_missing_secret_or_version_is_not_found(stack: Stack, name: str) -> None:
    stack.put(name, "only one")
    for request in (
        {"name": f"{name}/none"},
        {"name": name, "version": 2},
        {"name": name, "stage": "AWSPREVIOUS"},
        {"name": name, "stage": "AWSPENDING"},
        {"name": name, "revision": "0000000"},
    ):
        for origin, response in stack.both("get", request):
            assert response.code == "NotFound", request
            assert response.status == (404 if origin == "http" else None)
    for _, response in stack.both("list", {"name": f"{name}/none"}):
        assert response.code == "NotFound"
    for _, response in stack.both("list", {"prefix": f"{name}/none"}):
        assert response.body == {"secrets": []}


def test_an_explicit_version_is_used_if_it_is_free(stack: Stack, name: str) -> None:
    last = 10**19 - 1
    assert stack.put(name, "nine", version=9)["version"] == 9
    assert stack.put(name, "ten")["version"] == 10
    assert stack.put(name, "four", version=4)["version"] == 4
    for _, response in stack.both("put", {"name": name, "secret": "again", "version": 9}):
        assert response.code == "Exists"
    assert stack.get(name, version=9)["secret"] == "nine"
    assert stack.get(name)["secret"] == "ten"
    assert stack.put(name, "last", version=last)["version"] == last
    assert stack.get(name)["version"] == last
    assert stack.invoke("put", {"name": name, "secret": "beyond"}).code == "Exists"
    assert len(stack.versions_of(name)) == 4


def test_an_expired_version_is_refused_before_dynamodb_deletes_it(stack: Stack, name: str) -> None:
    """Reads a version until its two seconds are over, by the `expires_at` of its row."""
    stack.put(name, "kept", ttl=3600)
    stack.put(name, "short", ttl=2)
    end = int(stack.row(name, 2)["expires_at"])
    while datetime.now().timestamp() < end:
        response = stack.invoke("get", {"name": name})
        assert response.code == "OK" or datetime.now().timestamp() >= end
    for origin, response in stack.both("get", {"name": name}):
        assert response.code == "Expired"
        assert response.status == (410 if origin == "http" else None)
    assert stack.get(name, version=1)["secret"] == "kept"
    assert len(stack.versions_of(name)) == 2
    versions = stack.invoke("list", {"name": name}).body["versions"]
    assert [version["version"] for version in versions] == [2, 1]


@pytest.mark.parametrize(
    "fields",
    [
        {"ttl": 0},
        {"ttl": 2**63},
        {"ttl": 60, "expires_at": 4102444800},
        {"expires_at": 1},
        {"expires_at": "2001-01-01T00:00:00Z"},
        {"expires_at": "tomorrow"},
        {"expires_at": 253402300800},
    ],
    ids=str,
)
def test_an_invalid_expiry_is_refused(stack: Stack, name: str, fields: dict[str, Any]) -> None:
    assert stack.invoke("put", {"name": name, "secret": "s", **fields}).code == "Invalid"
    assert stack.versions_of(name) == []


def test_list_returns_the_newest_version_and_its_description(stack: Stack, name: str) -> None:
    stack.put(f"{name}/a", "1", comment="old")
    stack.put(f"{name}/a", "2", comment="new", context={"k": "v"})
    stack.put(f"{name}/b", "3")
    stack.put(f"{name}.c", "4")
    stack.put(f"{name}x", "outside")
    for _, response in stack.both("list", {"prefix": name}):
        found = {entry["name"]: entry for entry in response.body["secrets"]}
        assert set(found) == {f"{name}/a", f"{name}/b", f"{name}.c"}
        newest = found[f"{name}/a"]
        assert (newest["version"], newest["comment"], newest["context"]) == (2, "new", {"k": "v"})
        assert set(found[f"{name}/b"]) == {"name", "version", "revision", "created_at"}
        assert "next" not in response.body


def test_a_name_with_a_leading_slash_works_by_http_and_by_direct_invoke(
    stack: Stack, name: str
) -> None:
    """Parameter Store has such names. In a path of the API, /prod/db is written ~/prod/db."""
    slashed = f"/{name}/db"
    stack.put(f"{name}/db", "another")
    for number, (_, response) in enumerate(stack.both("put", {"name": slashed, "secret": "s"}), 1):
        assert (response.body["name"], response.body["version"]) == (slashed, number)
    by_path = stack.http("GET", f"/secrets/~{slashed}")
    assert (by_path.body["name"], by_path.body["secret"]) == (slashed, "s")
    for _, response in stack.both("get", {"name": slashed}):
        assert (response.body["name"], response.body["secret"], response.body["version"]) == (
            slashed,
            "s",
            2,
        )
    for prefix in (f"/{name}", f"/{name}/*"):
        for verb in ("list", "get"):
            for _, response in stack.both(verb, {"prefix": prefix}):
                assert [entry["name"] for entry in response.body["secrets"]] == [slashed]
    for _, response in stack.both("list", {"name": slashed}):
        assert [version["version"] for version in response.body["versions"]] == [2, 1]
    for _, response in stack.both("policy", {"policy": "put", "name": slashed, "days": 30}):
        assert response.code == "OK", response
    for _, response in stack.both("policy", {"policy": "get", "name": slashed}):
        assert response.body["name"] == slashed
    assert stack.by_http("policy", {"policy": "cancel", "name": slashed}).status == 200
    assert sorted(stack.by_http("delete", {"name": slashed}).body["versions"]) == [1, 2]
    assert sorted(stack.by_http("restore", {"name": slashed}).body["versions"]) == [1, 2]
    for _, response in stack.both("list", {"list": "history", "name": slashed}):
        assert response.code == "OK"
    assert stack.verify(slashed) == {}
    assert stack.get(f"{name}/db")["secret"] == "another"
    assert len(stack.versions_of(f"{name}/db")) == 1


def test_the_size_limit_is_reported_in_bytes_and_is_exact(stack: Stack, name: str) -> None:
    response = stack.invoke("put", {"name": name, "secret": "x" * 1_000_000})
    assert response.code == "TooLarge"
    response = stack.invoke("put", {"name": name, "secret": "x" * 307_200, "comment": "c" * 1000})
    assert response.code == "TooLarge"
    most = next(int(word) for word in response.message.split() if word.isdigit())
    assert stack.versions_of(name) == []
    over = {"name": name, "secret": "x" * (most + 3), "comment": "c" * 1000}
    assert stack.invoke("put", over).code == "TooLarge"
    stack.put(name, "x" * most, comment="c" * 1000)
    assert stack.get(name)["secret"] == "x" * most
    assert stack.by_http("put", {"name": name, "secret": "x" * 1_000_000}).status == 413


def test_the_seal_matches_the_documented_format(stack: Stack, kms: Any, name: str) -> None:
    """Computes the seal again from the documented format, without Coffer's code."""
    stack.put(name, "s", comment="why", ttl=60, context={"b": "2", "a": "1"})
    row = stack.row(name)
    data_key = kms.decrypt(
        CiphertextBlob=base64.b64decode(row["key"]), EncryptionContext={"a": "1", "b": "2"}
    )["Plaintext"]
    assert row["seal"] == seal_of(data_key, row)
    assert set(row) == {
        *("name", "version", "key", "contents", "hmac", "digest", "comment"),
        *("revision", "created_at", "expires_at", "context", "seal"),
    }
    assert isinstance(row["hmac"], str) and row["digest"] == "SHA256"
    assert len(row["version"]) == 19
    int(row["revision"].value, 16)
