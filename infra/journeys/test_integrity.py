"""Integrity: rows that somebody with write access to the table swapped, moved or edited."""

import base64
from typing import Any

import pytest
from boto3.dynamodb.types import Binary

from conftest import Stack


def assert_refused(stack: Stack, name: str, **fields: Any) -> None:
    """Asserts that a get of this secret reports a failed integrity check."""
    for origin, response in stack.both("get", {"name": name, **fields}):
        assert response.code == "Integrity", response
        assert response.status == (500 if origin == "http" else None)


def test_swapped_rows_are_refused(stack: Stack, name: str) -> None:
    for suffix in "ab":
        stack.put(f"{name}/{suffix}", f"value {suffix}")
    a, b = (stack.row(f"{name}/{suffix}") for suffix in "ab")
    keys = ("name", "version")
    for one, other in ((a, b), (b, a)):
        stack.rows.put_item(Item={**other, **{key: one[key] for key in keys}})
    assert_refused(stack, f"{name}/a")
    assert_refused(stack, f"{name}/b")


@pytest.mark.parametrize("part", ["contents", "hmac", "key", "seal"])
def test_an_attribute_of_another_row_is_refused(stack: Stack, name: str, part: str) -> None:
    for suffix in "ab":
        stack.put(f"{name}/{suffix}", f"value {suffix}")
    a, b = (stack.row(f"{name}/{suffix}") for suffix in "ab")
    stack.rows.put_item(Item={**a, part: b[part]})
    assert_refused(stack, f"{name}/a")


def test_a_row_renamed_or_moved_to_another_version_is_refused(stack: Stack, name: str) -> None:
    stack.put(name, "old")
    stack.put(name, "new")
    row = stack.row(name, 1)
    stack.rows.put_item(Item={**row, "name": f"{name}/renamed"})
    assert_refused(stack, f"{name}/renamed")
    # Copies the old value to the newest version, and to a version after it.
    stack.rows.put_item(Item={**row, "version": f"{2:019}"})
    assert_refused(stack, name)
    stack.rows.put_item(Item={**row, "version": f"{3:019}"})
    assert_refused(stack, name)
    assert stack.get(name, version=1)["secret"] == "old"


@pytest.mark.parametrize(
    "edit",
    [
        {"comment": "edited"},
        {"comment": None},
        {"expires_at": 4102444800},
        {"expires_at": 1},
        {"expires_at": None},
        {"created_at": 1},
        {"created_at": "text"},
        {"revision": Binary(b"0123456789abcdef")},
        {"revision": None},
        {"context": {"app": "other"}},
        {"context": {"app": "web", "more": "yes"}},
        {"context": None},
        {"binary": True},
        {"json": True},
        {"digest": "SHA512"},
        {"digest": "WHIRLPOOL"},
        {"digest": None},
        {"extra": "attribute"},
        {"extra": {"a": 1}},
        {"seal": "AAAA"},
        {"seal": ""},
        {"seal": Binary(b"seal")},
        {"seal": 1},
    ],
    ids=str,
)
def test_any_edit_of_a_sealed_row_is_refused(stack: Stack, name: str, edit: dict[str, Any]) -> None:
    context = {"app": "web"}
    stack.put(name, "s", comment="why", ttl=3600, context=context)
    row = {**stack.row(name), **edit}
    row = {attribute: value for attribute, value in row.items() if value is not None}
    stack.rows.put_item(Item=row)
    assert_refused(stack, name, context=context)


def test_a_flipped_bit_of_the_wrapped_key_is_refused(stack: Stack, name: str) -> None:
    stack.put(name, "s")
    row = stack.row(name)
    key = base64.b64decode(row["key"])
    for bit in range(0, len(key) * 8, 61):
        flipped = bytearray(key)
        flipped[bit // 8] ^= 1 << bit % 8
        stack.rows.put_item(Item={**row, "key": base64.b64encode(flipped).decode()})
        assert stack.invoke("get", {"name": name}).code == "Integrity", bit
    for short in (b"", b"x", key[:-1], key + b"x"):
        stack.rows.put_item(Item={**row, "key": base64.b64encode(short).decode()})
        assert stack.invoke("get", {"name": name}).code == "Integrity", short


def test_a_data_key_of_another_kms_key_is_refused(stack: Stack, kms: Any, name: str) -> None:
    other = kms.create_key()["KeyMetadata"]["Arn"]
    wrapped = kms.generate_data_key(KeyId=other, NumberOfBytes=64)["CiphertextBlob"]
    stack.put(name, "s")
    stack.rows.put_item(Item={**stack.row(name), "key": base64.b64encode(wrapped).decode()})
    assert_refused(stack, name)


def test_a_data_key_that_is_not_64_bytes_is_refused(stack: Stack, kms: Any, name: str) -> None:
    wrapped = kms.encrypt(KeyId=stack.key_arn, Plaintext=b"k" * 32)["CiphertextBlob"]
    stack.put(name, "s")
    stack.rows.put_item(Item={**stack.row(name), "key": base64.b64encode(wrapped).decode()})
    assert_refused(stack, name)


def test_a_row_that_is_not_a_secret_is_malformed(stack: Stack, name: str) -> None:
    stack.put(name, "s")
    row = stack.row(name)
    edits: list[dict[str, Any]] = [
        {"contents": None},
        {"contents": 1},
        {"key": None},
        {"hmac": {"a": "b"}},
        {"contents": "not base64!"},
        {"digest": "BLAKE99"},
    ]
    for edit in edits:
        edited = {key: value for key, value in {**row, **edit}.items() if value is not None}
        stack.rows.put_item(Item=edited)
        for _, response in stack.both("get", {"name": name}):
            assert response.code == "Malformed", edit


def test_a_row_without_its_seal_is_refused_if_anything_else_shows_that_it_had_one(
    stack: Stack, name: str
) -> None:
    context = {"app": "web"}
    stack.put(name, '{"user": "app"}', context=context)
    row = stack.row(name)
    assert row["json"] is True
    del row["seal"]
    removals: list[tuple[str, ...]] = [(), ("context",), ("json",)]
    for removed in removals:
        stripped = {field: value for field, value in row.items() if field not in removed}
        stack.rows.put_item(Item=stripped)
        assert_refused(stack, name, context=context)
    # Without both, it looks like a row of another client.
    stripped = {field: value for field, value in row.items() if field not in ("context", "json")}
    stack.rows.put_item(Item=stripped)
    assert stack.get(name, context=context)["dialect"] == "credstash"


def test_a_binary_value_without_its_seal_is_refused(stack: Stack, name: str) -> None:
    stack.put(name, secret_base64=base64.b64encode(b"\xff").decode())
    row = stack.row(name)
    for field in ("seal", "context"):
        del row[field]
    stack.rows.put_item(Item=row)
    assert_refused(stack, name)
