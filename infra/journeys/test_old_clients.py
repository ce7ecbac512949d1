"""credstash and nodecredstash, as published, on the table that Coffer writes."""

import base64
import threading

import pytest

SECRETS = {
    "text": "hunter2",
    "unicode": "pässwörd ☃ 鍵 🔑",
    "one byte": "x",
    "empty": "",
    "64 KiB": "k" * 65536,
    "lines": "-----BEGIN KEY-----\nabc\n-----END KEY-----\n",
}
CONTEXTS = {"no context": {}, "a context": {"app": "web", "stage": "prod"}}


def pairs(context):
    return [f"{key}={value}" for key, value in context.items()]


@pytest.mark.parametrize("context", CONTEXTS.values(), ids=CONTEXTS)
@pytest.mark.parametrize("secret", SECRETS.values(), ids=SECRETS)
def test_old_clients_read_what_put_wrote(stack, credstash, nodecredstash, name, secret, context):
    stack.put(name, secret, context=context, comment="by coffer")
    code, out, err = credstash("get", "-n", name, *pairs(context))
    assert (code, out) == (0, secret), err
    assert nodecredstash("getSecret", name=name, context=context) == {"ok": secret}
    if context:
        assert credstash("get", name)[0] != 0
        assert "error" in nodecredstash("getSecret", name=name)


@pytest.mark.parametrize("context", CONTEXTS.values(), ids=CONTEXTS)
@pytest.mark.parametrize("secret", SECRETS.values(), ids=SECRETS)
def test_get_opens_values_of_every_kind(
    stack, credstash, nodecredstash, name, secret, context, tmp_path
):
    # credstash takes what begins with @ from a file.
    (tmp_path / "secret").write_text(secret)
    value = f"@{tmp_path / 'secret'}"
    code, _, err = credstash("put", "-k", stack.key_arn, name, value, *pairs(context))
    assert code == 0, err
    written = nodecredstash(
        "putSecret",
        name=name, version=2, secret=secret, context=context, kmsKey=stack.key_arn,
    )
    assert "ok" in written, written
    for version in (1, 2):
        for _, got in stack.both("get", {"name": name, "version": version, "context": context}):
            assert (got.body["secret"], got.body["dialect"]) == (secret, "credstash")


@pytest.mark.parametrize("context", CONTEXTS.values(), ids=CONTEXTS)
@pytest.mark.parametrize("digest", ["SHA", "SHA224", "SHA256", "SHA384", "SHA512", "MD5"])
def test_get_opens_what_credstash_wrote(stack, credstash, name, digest, context):
    secret = "by credstash, ☃"
    code, _, err = credstash(
        "put", "-k", stack.key_arn, "-d", digest, "-c", "a comment", name, secret, *pairs(context)
    )
    assert code == 0, err
    for _, got in stack.both("get", {"name": name, "context": context}):
        assert got.body["secret"] == secret
        assert got.body["comment"] == "a comment"
        assert got.body["dialect"] == "credstash"
        assert got.body["version"] == 1
        assert "revision" not in got.body and "created_at" not in got.body


@pytest.mark.parametrize("context", CONTEXTS.values(), ids=CONTEXTS)
@pytest.mark.parametrize("digest", ["SHA256", "SHA512", "SHA1", "MD5"])
def test_get_opens_what_nodecredstash_wrote(stack, nodecredstash, name, digest, context):
    written = nodecredstash(
        "putSecret",
        name=name, secret="by node, ☃", digest=digest, context=context, kmsKey=stack.key_arn,
    )
    assert "ok" in written, written
    for _, got in stack.both("get", {"name": name, "context": context}):
        assert (got.body["secret"], got.body["dialect"]) == ("by node, ☃", "credstash")


def test_odd_versions_of_other_clients_are_got_listed_and_not_counted_on(
    stack, credstash, nodecredstash, name
):
    put = lambda version: credstash("put", "-k", stack.key_arn, "-v", version, name, f"v {version}")
    assert put("0")[0] == 0
    assert stack.get(name)["version"] == 0
    assert stack.get(name, version=0)["secret"] == "v 0"
    # From 0, which credstash's putall writes, everybody counts on.
    assert stack.put(name, "one")["version"] == 1
    assert put("42")[0] == 0
    assert stack.put(name, "43")["version"] == 43
    # Unpadded, as before 2016, and free text: as these clients wrote them.
    sealed = stack.versions_of(name)[0]
    for version in ("7", "release-2"):
        stack.rows.put_item(Item={**sealed, "version": version})
    for _, got in stack.both("get", {"name": name, "version": "release-2"}):
        assert (got.body["version"], got.body["secret"]) == ("release-2", "v 0")
    for request in ({"version": 7}, {"version": "7"}):
        for _, got in stack.both("get", {"name": name, **request}):
            assert (got.body["version"], got.body["secret"]) == (7, "v 0")
    # It sorts above every number, for everybody.
    assert stack.get(name)["version"] == "release-2"
    assert credstash("get", "-n", name)[1] == "v 0"
    for request in ({}, {"version": 1000}):
        for _, answer in stack.both("put", {"name": name, "secret": "next", **request}):
            assert answer.code == "Exists"
            assert "another name" in answer.message and "elete" not in answer.message
    assert "not an int" in nodecredstash("incrementVersion", name=name)["error"]
    versions = stack.invoke("list", {"name": name}).body["versions"]
    assert [entry["version"] for entry in versions] == ["release-2", 7, 43, 42, 1, 0]
    for version in (0, 10**19, "release-1"):
        for _, answer in stack.both("get", {"name": f"{name}/other", "version": version}):
            assert answer.code == "Invalid"


def test_a_put_below_the_highest_version_says_so(stack, name):
    assert "current" not in stack.put(name, "five", version=5)
    request = {"name": name, "secret": "three", "version": 3, "token": f"{name} 3"}
    for _, answer in stack.both("put", request):
        assert answer.code == "OK" and answer.body["current"] is False
    assert "current" not in stack.put(name, "six")
    # The same answer again, although version 3 is the highest by now.
    for version in (5, 6):
        stack.done("delete", name=name, version=version)
    for _, answer in stack.both("put", request):
        assert answer.code == "OK" and answer.body["current"] is False
    assert stack.get(name)["secret"] == "three"
    # An unpadded number sorts above the padded ones. The advice is to pad it, not to delete it.
    sealed = stack.row(name, 3)
    stack.rows.put_item(Item={**sealed, "version": "7"})
    for more in ({}, {"version": 9}):
        for _, answer in stack.both("put", {"name": name, "secret": "next", **more}):
            assert answer.code == "Exists"
            assert "action reseal" in answer.message and "elete" not in answer.message


def test_old_clients_list_and_never_see_what_is_no_secret(stack, credstash, name):
    stack.put(name, "1", comment="first")
    stack.put(name, "2", comment="second")
    code, out, _ = credstash("list")
    lines = [line.split(" -- ") for line in out.splitlines() if line.startswith(name)]
    assert code == 0
    listed = [(version.split()[1], comment.split(maxsplit=1)[1]) for _, version, comment in lines]
    assert listed == [(f"{n:019}", c) for n, c in ((1, "first"), (2, "second"))]
    keys = {"name", "version", "key", "contents", "hmac", "digest"}
    assert all(keys <= set(row) for row in stack.versions_of(name))


def test_writers_of_every_kind_take_turns_and_lose_nothing(stack, credstash, nodecredstash, name):
    expected = {}
    for turn in range(4):
        for kind in ("coffer", "credstash", "nodecredstash"):
            secret = f"{kind} {turn}"
            if kind == "coffer":
                stack.put(name, secret)
            elif kind == "credstash":
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
        # nodecredstash 3 refuses every hmac of type B, which is how credstash on Python 3 writes.
        if not secret.startswith("credstash"):
            assert nodecredstash("getSecret", name=name, version=version) == {"ok": secret}
    assert len(stack.versions_of(name)) == len(expected)


def test_coffer_and_old_clients_write_at_once(stack, nodecredstash, credstash, name):
    """Old clients give up on a race; what they were told is written, is there, and so is all else."""
    written, lock, puts = {}, threading.Lock(), 12

    def note(version, secret):
        with lock:
            assert version not in written
            written[version] = secret

    def coffer(writer):
        for number in range(puts):
            secret = f"coffer {writer} {number}"
            note(stack.put(name, secret)["version"], secret)

    def python():
        for number in range(4):
            secret = f"credstash {number}"
            if credstash("put", "-a", "-k", stack.key_arn, name, secret)[0] == 0:
                row = next(r for r in reversed(stack.versions_of(name)) if "seal" not in r
                           and stack.get(name, version=int(r["version"]))["secret"] == secret)
                note(int(row["version"]), secret)

    def node():
        for number in range(puts):
            secret = f"node {number}"
            version = nodecredstash("incrementVersion", name=name)["ok"]
            answer = nodecredstash(
                "putSecret", name=name, version=version, secret=secret, kmsKey=stack.key_arn
            )
            if "ok" in answer:
                note(int(version), secret)

    failures = []

    def guarded(work, *arguments):
        def run():
            try:
                work(*arguments)
            except BaseException as failure:  # shown by the assertion below
                failures.append(failure)
        return threading.Thread(target=run)

    threads = [guarded(coffer, writer) for writer in range(4)] + [guarded(python), guarded(node)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(120)
    assert not failures
    rows = stack.versions_of(name)
    assert [int(row["version"]) for row in rows] == list(range(1, len(rows) + 1))
    assert set(written) == set(range(1, len(rows) + 1))
    writers = {secret.split()[0] for secret in written.values()}
    assert writers == {"coffer", "credstash", "node"}
    for version, secret in written.items():
        assert stack.get(name, version=version)["secret"] == secret


def test_a_value_that_is_no_text_is_there_for_those_who_can_read_it(stack, nodecredstash, name):
    stack.put(name, secret_base64=base64.b64encode(b"\xff\x00").decode())
    assert "ok" in nodecredstash("getSecret", name=name)
