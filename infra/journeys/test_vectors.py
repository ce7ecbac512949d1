"""The get function opens or refuses rows of every dialect in the table as `vectors.json` specifies.

The data key of each vector is first encrypted with the stack's KMS key.
"""

import base64
from typing import Any

import pytest

from conftest import Stack
from legacy import CLIENTS, Writer
from vectors import VECTORS, row_of_vector

CONTEXT = {"vector": "yes"}


@pytest.mark.parametrize("vector", VECTORS, ids=lambda vector: vector["name"])
@pytest.mark.parametrize("context", [{}, CONTEXT], ids=["no context", "a context"])
def test_each_vector_opens_or_is_refused_as_specified(
    stack: Stack, kms: Any, name: str, vector: dict[str, Any], context: dict[str, str]
) -> None:
    item = row_of_vector(kms, stack.key_arn, vector, name, context)
    stack.rows.put_item(Item=item)
    for _, response in stack.both("get", {"name": name, "context": context}):
        if "error" in vector["expect"]:
            assert response.code == vector["expect"]["error"]
            continue
        plaintext = base64.b64decode(vector["expect"]["plaintext"])
        if "secret" in response.body:
            assert response.body["secret"].encode() == plaintext
        else:
            assert base64.b64decode(response.body["secret_base64"]) == plaintext
        assert response.body.get("comment") == item.get("comment")
        dialect = vector["dialect"].removesuffix("-python2")
        if vector["name"] != "ru-short":
            assert response.body["dialect"] == dialect
        if "revision" in item:
            revision = item["revision"].value.decode()
            assert response.body["revision"] == revision
            assert stack.get(name, revision=revision, context=context)["revision"] == revision


@pytest.mark.parametrize("client", CLIENTS)
def test_values_of_other_clients_are_returned_unchanged(
    stack: Stack, kms: Any, name: str, client: str
) -> None:
    """Covers text, and binary values that rucredstash's counter would decrypt to valid UTF-8."""
    writer = Writer(kms, stack.key_arn)
    stack.rows.put_item(Item=writer.row(name, "a password", client))
    for _, response in stack.both("get", {"name": name}):
        assert (response.body["secret"], response.body["dialect"]) == ("a password", "credstash")
    value = b"sixteen letters.\xff"
    stack.rows.put_item(Item=writer.ambiguous(name, value, client))
    for origin, response in stack.both("get", {"name": name}):
        if client == "credstash":
            # rucredstash writes this form, too, and none of the others.
            assert (response.code, response.status) == (
                "Malformed",
                400 if origin == "http" else None,
            )
            assert "dialects" in response.message
            continue
        assert response.body["dialect"] == "credstash" and "secret" not in response.body
        assert base64.b64decode(response.body["secret_base64"]) == value


def test_a_removed_digest_opens_and_an_unknown_digest_is_refused(
    stack: Stack, kms: Any, name: str
) -> None:
    writer = Writer(kms, stack.key_arn)
    row = writer.row(name, "sealed with RIPEMD", digest="RIPEMD")
    stack.rows.put_item(Item=row)
    for _, response in stack.both("get", {"name": name}):
        assert response.body["secret"] == "sealed with RIPEMD"
    stack.rows.put_item(Item={**row, "digest": "BLAKE99"})
    for _, response in stack.both("get", {"name": name}):
        assert response.code == "Malformed" and "digest" in response.message
        assert "BLAKE99" not in response.message


def test_a_legacy_row_retyped_from_text_to_bytes_is_refused(
    stack: Stack, kms: Any, name: str
) -> None:
    writer = Writer(kms, stack.key_arn)
    row = writer.row(name, "a password of some length", "nodecredstash")
    for retyped, code in ((writer.retyped(row), "Malformed"), (writer.disguised(row), "Integrity")):
        stack.rows.put_item(Item=retyped)
        for _, response in stack.both("get", {"name": name}):
            assert response.code == code
