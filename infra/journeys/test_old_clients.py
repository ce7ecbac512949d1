"""Published releases of credstash and nodecredstash share a table of secrets with Coffer."""

import base64
import threading
from collections.abc import Callable
from functools import partial
from pathlib import Path

import pytest

from conftest import CommandLine, NodeClient, Stack

SECRETS = {
    "text": "hunter2",
    "unicode": "pässwörd ☃ 鍵 🔑",
    "one byte": "x",
    "empty": "",
    "64 KiB": "k" * 65536,
    "lines": "-----BEGIN KEY-----\nabc\n-----END KEY-----\n",
}
CONTEXTS: dict[str, dict[str, str]] = {
    "no context": {},
    "a context": {"app": "web", "stage": "prod"},
}


def pairs(context: dict[str, str]) -> list[str]:
    return [f"{key}={value}" for key, value in context.items()]


@pytest.mark.parametrize("context", CONTEXTS.values(), ids=CONTEXTS)
@pytest.mark.parametrize("secret", SECRETS.values(), ids=SECRETS)
def test_old_clients_read_what_put_wrote(
    stack: Stack,
    credstash: CommandLine,
    nodecredstash: NodeClient,
    name: str,
    secret: str,
    context: dict[str, str],
) -> None:
    stack.put(name, secret, context=context, comment="by coffer")
    code, out, err = credstash("get", "-n", name, *pairs(context))
    assert (code, out) == (0, secret), err
    assert nodecredstash("getSecret", name=name, context=context) == {"ok": secret}
    if context:
        assert credstash("get", name)[0] != 0
        assert "error" in nodecredstash("getSecret", name=name)


@pytest.mark.parametrize("context", CONTEXTS.values(), ids=CONTEXTS)
@pytest.mark.parametrize("secret", SECRETS.values(), ids=SECRETS)
def test_get_opens_every_kind_of_value_from_old_clients(
    stack: Stack,
    credstash: CommandLine,
    nodecredstash: NodeClient,
    name: str,
    secret: str,
    context: dict[str, str],
    tmp_path: Path,
) -> None:
    # credstash reads a value that begins with @ from a file.
    (tmp_path / "secret").write_text(secret)
    value = f"@{tmp_path / 'secret'}"
    code, _, err = credstash("put", "-k", stack.key_arn, name, value, *pairs(context))
    assert code == 0, err
    written = nodecredstash(
        "putSecret",
        name=name,
        version=2,
        secret=secret,
        context=context,
        kmsKey=stack.key_arn,
    )
    assert "ok" in written, written
    for version in (1, 2):
        for _, response in stack.both(
            "get", {"name": name, "version": version, "context": context}
        ):
            assert (response.body["secret"], response.body["dialect"]) == (secret, "credstash")


@pytest.mark.parametrize("context", CONTEXTS.values(), ids=CONTEXTS)
@pytest.mark.parametrize("digest", ["SHA", "SHA224", "SHA256", "SHA384", "SHA512", "MD5"])
def test_get_opens_what_credstash_wrote(
    stack: Stack, credstash: CommandLine, name: str, digest: str, context: dict[str, str]
) -> None:
    secret = "by credstash, ☃"
    code, _, err = credstash(
        "put", "-k", stack.key_arn, "-d", digest, "-c", "a comment", name, secret, *pairs(context)
    )
    assert code == 0, err
    for _, response in stack.both("get", {"name": name, "context": context}):
        assert response.body["secret"] == secret
        assert response.body["comment"] == "a comment"
        assert response.body["dialect"] == "credstash"
        assert response.body["version"] == 1
        assert "revision" not in response.body and "created_at" not in response.body


@pytest.mark.parametrize("context", CONTEXTS.values(), ids=CONTEXTS)
@pytest.mark.parametrize("digest", ["SHA256", "SHA512", "SHA1", "MD5"])
def test_get_opens_what_nodecredstash_wrote(
    stack: Stack, nodecredstash: NodeClient, name: str, digest: str, context: dict[str, str]
) -> None:
    written = nodecredstash(
        "putSecret",
        name=name,
        secret="by node, ☃",
        digest=digest,
        context=context,
        kmsKey=stack.key_arn,
    )
    assert "ok" in written, written
    for _, response in stack.both("get", {"name": name, "context": context}):
        assert (response.body["secret"], response.body["dialect"]) == ("by node, ☃", "credstash")


def test_unusual_versions_of_old_clients_are_read_and_listed_but_not_incremented(
    stack: Stack, credstash: CommandLine, nodecredstash: NodeClient, name: str
) -> None:
    def put(version: str) -> None:
        code, _, err = credstash("put", "-k", stack.key_arn, "-v", version, name, f"v {version}")
        assert code == 0, err

    put("0")
    assert stack.get(name)["version"] == 0
    assert stack.get(name, version=0)["secret"] == "v 0"
    # credstash's putall writes version 0. Every client continues from there.
    assert stack.put(name, "one")["version"] == 1
    put("42")
    assert stack.put(name, "43")["version"] == 43
    # Unpadded numbers are from before 2016. Some clients write free text as the version.
    sealed = stack.versions_of(name)[0]
    for version in ("7", "release-2"):
        stack.rows.put_item(Item={**sealed, "version": version})
    for _, response in stack.both("get", {"name": name, "version": "release-2"}):
        assert (response.body["version"], response.body["secret"]) == ("release-2", "v 0")
    for request in ({"version": 7}, {"version": "7"}):
        for _, response in stack.both("get", {"name": name, **request}):
            assert (response.body["version"], response.body["secret"]) == (7, "v 0")
    # Free text sorts above every number for all clients.
    assert stack.get(name)["version"] == "release-2"
    assert credstash("get", "-n", name)[1] == "v 0"
    for request in ({}, {"version": 1000}):
        for _, response in stack.both("put", {"name": name, "secret": "next", **request}):
            assert response.code == "Exists"
            assert "another name" in response.message and "elete" not in response.message
    assert "not an int" in nodecredstash("incrementVersion", name=name)["error"]
    versions = stack.invoke("list", {"name": name}).body["versions"]
    assert [entry["version"] for entry in versions] == ["release-2", 7, 43, 42, 1, 0]
    for invalid in (0, 10**19, "release-1"):
        for _, response in stack.both("get", {"name": f"{name}/other", "version": invalid}):
            assert response.code == "Invalid"


def test_a_put_below_the_highest_version_is_reported_as_not_current(
    stack: Stack, name: str
) -> None:
    assert "current" not in stack.put(name, "five", version=5)
    request = {"name": name, "secret": "three", "version": 3, "token": f"{name} 3"}
    for _, response in stack.both("put", request):
        assert response.code == "OK" and response.body["current"] is False
    assert "current" not in stack.put(name, "six")
    # A repeated put gets the same response, although version 3 is now the highest.
    for version in (5, 6):
        stack.done("delete", name=name, version=version)
    for _, response in stack.both("put", request):
        assert response.code == "OK" and response.body["current"] is False
    assert stack.get(name)["secret"] == "three"
    # An unpadded number sorts above the padded ones. The message says to pad it, not to delete it.
    sealed = stack.row(name, 3)
    stack.rows.put_item(Item={**sealed, "version": "7"})
    for fields in ({}, {"version": 9}):
        for _, response in stack.both("put", {"name": name, "secret": "next", **fields}):
            assert response.code == "Exists"
            assert "action reseal" in response.message and "elete" not in response.message


def test_old_clients_list_secrets_and_nothing_else(
    stack: Stack, credstash: CommandLine, name: str
) -> None:
    stack.put(name, "1", comment="first")
    stack.put(name, "2", comment="second")
    code, out, _ = credstash("list")
    lines = [line.split(" -- ") for line in out.splitlines() if line.startswith(name)]
    assert code == 0
    listed = [(version.split()[1], comment.split(maxsplit=1)[1]) for _, version, comment in lines]
    assert listed == [(f"{n:019}", c) for n, c in ((1, "first"), (2, "second"))]
    keys = {"name", "version", "key", "contents", "hmac", "digest"}
    assert all(keys <= set(row) for row in stack.versions_of(name))


def test_all_clients_take_turns_without_losing_a_version(
    stack: Stack, credstash: CommandLine, nodecredstash: NodeClient, name: str
) -> None:
    expected: dict[int, str] = {}
    for turn in range(4):
        for client in ("coffer", "credstash", "nodecredstash"):
            secret = f"{client} {turn}"
            if client == "coffer":
                stack.put(name, secret)
            elif client == "credstash":
                assert credstash("put", "-a", "-k", stack.key_arn, name, secret)[0] == 0
            else:
                version = nodecredstash("incrementVersion", name=name)["ok"]
                written = nodecredstash(
                    "putSecret", name=name, version=version, secret=secret, kmsKey=stack.key_arn
                )
                assert "ok" in written, written
            expected[len(expected) + 1] = secret
    for version, secret in expected.items():
        assert stack.get(name, version=version)["secret"] == secret
        assert credstash("get", "-n", "-v", f"{version:019}", name)[1] == secret
        # nodecredstash 3 refuses an hmac of type B, which credstash on Python 3 writes.
        if not secret.startswith("credstash"):
            assert nodecredstash("getSecret", name=name, version=version) == {"ok": secret}
    assert len(stack.versions_of(name)) == len(expected)


def run_in_threads(tasks: list[Callable[[], None]], seconds: float) -> list[BaseException]:
    """Runs each task in a thread of its own and returns their exceptions."""
    failures = []

    def run(task: Callable[[], None]) -> None:
        try:
            task()
        except BaseException as failure:
            failures.append(failure)

    threads = [threading.Thread(target=run, args=(task,)) for task in tasks]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(seconds)
    return failures


def test_coffer_and_old_clients_write_concurrently_without_losing_a_version(
    stack: Stack, nodecredstash: NodeClient, credstash: CommandLine, name: str
) -> None:
    """Every put that a client reports as successful is in the table, and nothing else is.

    An old client fails if another client takes its version first.
    """
    written: dict[int, str] = {}
    lock, puts = threading.Lock(), 12

    def record(version: int, secret: str) -> None:
        with lock:
            assert version not in written
            written[version] = secret

    def coffer(writer: int) -> None:
        for number in range(puts):
            secret = f"coffer {writer} {number}"
            record(stack.put(name, secret)["version"], secret)

    def python() -> None:
        for number in range(4):
            secret = f"credstash {number}"
            if credstash("put", "-a", "-k", stack.key_arn, name, secret)[0] == 0:
                row = next(
                    r
                    for r in reversed(stack.versions_of(name))
                    if "seal" not in r
                    and stack.get(name, version=int(r["version"]))["secret"] == secret
                )
                record(int(row["version"]), secret)

    def node() -> None:
        for number in range(puts):
            secret = f"node {number}"
            version = nodecredstash("incrementVersion", name=name)["ok"]
            response = nodecredstash(
                "putSecret", name=name, version=version, secret=secret, kmsKey=stack.key_arn
            )
            if "ok" in response:
                record(int(version), secret)

    failures = run_in_threads(
        [*(partial(coffer, writer) for writer in range(4)), python, node], seconds=120
    )
    assert not failures
    rows = stack.versions_of(name)
    assert [int(row["version"]) for row in rows] == list(range(1, len(rows) + 1))
    assert set(written) == set(range(1, len(rows) + 1))
    writers = {secret.split()[0] for secret in written.values()}
    assert writers == {"coffer", "credstash", "node"}
    for version, secret in written.items():
        assert stack.get(name, version=version)["secret"] == secret


def test_nodecredstash_can_read_a_binary_value(
    stack: Stack, nodecredstash: NodeClient, name: str
) -> None:
    stack.put(name, secret_base64=base64.b64encode(b"\xff\x00").decode())
    assert "ok" in nodecredstash("getSecret", name=name)
