"""The test vectors of the crate, as rows of a table of secrets."""

import base64
import json
from typing import Any

from boto3.dynamodb.types import Binary

from conftest import ROOT

VECTORS: list[dict[str, Any]] = json.loads((ROOT / "shared/tests/vectors.json").read_text())[
    "vectors"
]


def row_of_vector(
    kms: Any, key: str, vector: dict[str, Any], name: str, context: dict[str, str]
) -> dict[str, Any]:
    """Returns the row of a vector under `name`, with its data key encrypted by a KMS key."""
    row = {field: decoded(attribute) for field, attribute in vector["item"].items()}
    wrapped = kms.encrypt(
        KeyId=key, Plaintext=bytes.fromhex(vector["data_key"]), EncryptionContext=context
    )["CiphertextBlob"]
    raw = isinstance(row["key"], Binary)
    row["key"] = Binary(wrapped) if raw else base64.b64encode(wrapped).decode()
    row["name"] = name
    return row


def decoded(attribute: dict[str, str]) -> Any:
    """Returns an attribute of a vector as boto3 represents it."""
    [(kind, value)] = attribute.items()
    return Binary(base64.b64decode(value)) if kind == "B" else value
