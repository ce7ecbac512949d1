"""Rows of every dialect in the live table, opened or refused by the get function as their file
says. Each vector's data key is wrapped by the stack's own key first."""

import base64
import json

import pytest
from boto3.dynamodb.types import Binary
from conftest import ROOT
from legacy import CLIENTS, Writer

VECTORS = json.loads((ROOT / "shared/tests/vectors.json").read_text())["vectors"]
CONTEXT = {"vector": "yes"}


def stored(attribute):
    [(kind, value)] = attribute.items()
    return Binary(base64.b64decode(value)) if kind == "B" else value


@pytest.mark.parametrize("vector", VECTORS, ids=lambda vector: vector["name"])
@pytest.mark.parametrize("context", [{}, CONTEXT], ids=["no context", "a context"])
def test_a_row_opens_or_is_refused_as_its_file_says(stack, kms, name, vector, context):
    item = {key: stored(value) for key, value in vector["item"].items()}
    wrapped = kms.encrypt(
        KeyId=stack.key_arn,
        Plaintext=bytes.fromhex(vector["data_key"]),
        EncryptionContext=context,
    )["CiphertextBlob"]
    raw = isinstance(item["key"], Binary)
    item["key"] = Binary(wrapped) if raw else base64.b64encode(wrapped).decode()
    item["name"] = name
    stack.rows.put_item(Item=item)
    for _, answer in stack.both("get", {"name": name, "context": context}):
        if "error" in vector["expect"]:
            assert answer.code == vector["expect"]["error"]
            continue
        plaintext = base64.b64decode(vector["expect"]["plaintext"])
        if "secret" in answer.body:
            assert answer.body["secret"].encode() == plaintext
        else:
            assert base64.b64decode(answer.body["secret_base64"]) == plaintext
        assert answer.body.get("comment") == item.get("comment")
        dialect = vector["dialect"].removesuffix("-python2")
        if vector["name"] != "ru-short":
            assert answer.body["dialect"] == dialect
        if "revision" in item:
            revision = item["revision"].value.decode()
            assert answer.body["revision"] == revision
            assert stack.get(name, revision=revision, context=context)["revision"] == revision


@pytest.mark.parametrize("client", CLIENTS)
def test_what_another_client_wrote_is_returned_as_it_was_written(stack, kms, name, client):
    """Text, and bytes that are not text but would be with rucredstash's counter."""
    writer = Writer(kms, stack.key_arn)
    stack.rows.put_item(Item=writer.row(name, "a password", client))
    for _, got in stack.both("get", {"name": name}):
        assert (got.body["secret"], got.body["dialect"]) == ("a password", "credstash")
    value = b"sixteen letters.\xff"
    stack.rows.put_item(Item=writer.ambiguous(name, value, client))
    for origin, got in stack.both("get", {"name": name}):
        if client == "credstash":
            # Only this form may be rucredstash's.
            assert (got.code, got.status) == ("Malformed", 400 if origin == "http" else None)
            assert "dialects" in got.message
            continue
        assert got.body["dialect"] == "credstash" and "secret" not in got.body
        assert base64.b64decode(got.body["secret_base64"]) == value


def test_a_removed_digest_opens_and_an_unknown_one_is_told(stack, kms, name):
    writer = Writer(kms, stack.key_arn)
    row = writer.row(name, "sealed with RIPEMD", digest="RIPEMD")
    stack.rows.put_item(Item=row)
    for _, got in stack.both("get", {"name": name}):
        assert got.body["secret"] == "sealed with RIPEMD"
    stack.rows.put_item(Item={**row, "digest": "BLAKE99"})
    for _, got in stack.both("get", {"name": name}):
        assert got.code == "Malformed" and "digest" in got.message
        assert "BLAKE99" not in got.message


def test_a_legacy_row_retyped_from_text_to_bytes_is_refused(stack, kms, name):
    writer = Writer(kms, stack.key_arn)
    row = writer.row(name, "a password of some length", "nodecredstash")
    for retyped, code in ((writer.retyped(row), "Malformed"), (writer.disguised(row), "Integrity")):
        stack.rows.put_item(Item=retyped)
        for _, got in stack.both("get", {"name": name}):
            assert got.code == code
