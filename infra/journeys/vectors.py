"""The test vectors of the crate, as rows of a table of secrets."""

import json
from typing import Any

from boto3.dynamodb.types import Binary

from conftest import ROOT
from stored_items import item_of, wrapped

VECTORS: list[dict[str, Any]] = json.loads((ROOT / "shared/tests/vectors.json").read_text())[
    "vectors"
]


def row_of_vector(
    kms: Any, key: str, vector: dict[str, Any], name: str, context: dict[str, str]
) -> dict[str, Any]:
    """Returns the row of a vector under `name`, with its data key encrypted by a KMS key."""
    row = item_of(vector["item"])
    binary = isinstance(row["key"], Binary)
    row["key"] = wrapped(kms, key, vector["data_key"], context, binary=binary)
    row["name"] = name
    return row
