"""Rows of every dialect in the live table, opened or refused by the get function as their file
says. Each vector's data key is wrapped by the stack's own key first."""

import base64
import json

import pytest
from boto3.dynamodb.types import Binary
from conftest import ROOT

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
