"""Items that files hold in DynamoDB's JSON, with plaintext data keys."""

import base64
from typing import Any

from boto3.dynamodb.types import Binary, TypeDeserializer


def item_of(typed: dict[str, Any]) -> dict[str, Any]:
    """Returns a stored item as boto3 represents it."""
    return {name: decoded(attribute) for name, attribute in typed.items()}


def decoded(attribute: dict[str, Any]) -> Any:
    """Returns a stored attribute as boto3 represents it."""
    [(kind, value)] = attribute.items()
    if kind == "B":
        return Binary(base64.b64decode(value))
    if kind == "M":
        return item_of(value)
    return TypeDeserializer().deserialize(attribute)


def wrapped(
    kms: Any, key: str, data_key: str, context: dict[str, str], *, binary: bool
) -> Binary | str:
    """Returns a data key in hexadecimal, wrapped by a KMS key, as the attribute `key` of a row."""
    blob = kms.encrypt(KeyId=key, Plaintext=bytes.fromhex(data_key), EncryptionContext=context)[
        "CiphertextBlob"
    ]
    return Binary(blob) if binary else base64.b64encode(blob).decode()
