"""KMS: integrity checks, wrong keys, size limits, ReEncrypt, and the rotation of key material.

Every blob records the key material that encrypted it.
"""

import base64
import hashlib
import hmac
import json
import time
from collections.abc import Awaitable, Callable
from typing import Any

import ministack.app
from ministack.core.iam_evaluator import enforce
from ministack.core.responses import error_response_json, json_response
from ministack.services import kms

from .request import Fields, Headers, Response, body_of, key_of, operation_of, unbase64

# Appended to ministack's blob: the number of the key material, and a tag over everything before it.
MATERIAL = 4
TAG = 32
# ministack's blob begins with a key id of 36 bytes. IV, ciphertext and ministack's own tag follow.
KEY_ID = 36
MAX_CONTEXT = 8192

# Calls an operation of ministack's KMS with this request.
Call = Callable[[str, Fields], Awaitable[Response]]


class Refused(Exception):
    """A request that KMS refuses, with its response."""

    def __init__(self, code: str, message: str = "") -> None:
        self.response = error(code, message)


def error(code: str, message: str = "") -> Response:
    return error_response_json(code, message, 400)


def tag(key: Fields, blob: bytes) -> bytes:
    return hmac.new(key["_symmetric_key"], b"t" + blob, hashlib.sha256).digest()


def material_id(key: Fields, number: int) -> str:
    """Returns the id of a key's material: 0 is the first, n that of the nth rotation."""
    return hashlib.sha256(f"{key['KeyId']} {number}".encode()).hexdigest()


def newest(key: Fields) -> int:
    """Returns the number of a key's current material."""
    return len(key.get("_rotations", []))


def tagged(key: Fields, response: Response) -> Response:
    """Returns a response with the number of the material and the tag appended to its blob."""
    status, headers, body = response
    if status != 200:
        return response
    fields = json.loads(body)
    blob = unbase64(fields["CiphertextBlob"]) + newest(key).to_bytes(MATERIAL, "big")
    fields["CiphertextBlob"] = base64.b64encode(blob + tag(key, blob)).decode()
    fields["KeyMaterialId"] = material_id(key, newest(key))
    return status, headers, json.dumps(fields).encode()


def untagged(blob: bytes, key_id: str | None) -> tuple[Fields, bytes, str]:
    """Verifies a blob. Returns its key, ministack's blob, and the id of its key material.

    Raises `Refused` with AWS's error.
    """
    whole = len(blob) > KEY_ID + MATERIAL + TAG
    key = key_of(blob[:KEY_ID].decode("utf8", "ignore")) if whole else None
    if key is None or "_symmetric_key" not in key:
        raise Refused("InvalidCiphertextException")
    if key_id:
        wanted = key_of(key_id)
        if wanted is None:
            raise Refused("NotFoundException", f"Key '{key_id}' does not exist")
        if wanted["KeyId"] != key["KeyId"]:
            # AWS checks that the requested key is enabled before it looks at the blob.
            if wanted.get("KeyState") == "Disabled":
                raise Refused("DisabledException", f"{wanted['Arn']} is disabled.")
            raise Refused(
                "IncorrectKeyException",
                "The key ID in the request does not identify a CMK that can perform this "
                "operation.",
            )
    if not hmac.compare_digest(tag(key, blob[:-TAG]), blob[-TAG:]):
        raise Refused("InvalidCiphertextException")
    number = int.from_bytes(blob[-TAG - MATERIAL : -TAG], "big")
    return key, blob[: -TAG - MATERIAL], material_id(key, number)


def authorize_reencrypt_to(headers: Headers, request: Fields) -> None:
    """Authorizes the use of ReEncrypt's destination key. Raises `Refused` if it is denied."""
    destination = key_of(request.get("DestinationKeyId"))
    if not ministack.app.AUTH or not destination:
        return
    context = request.get("DestinationEncryptionContext") or {}
    conditions: Fields = {f"kms:EncryptionContext:{key}": value for key, value in context.items()}
    if context:
        conditions["kms:EncryptionContextKeys"] = list(context)
    access_key = headers.get("authorization", "").split("Credential=")[-1].split("/")[0]
    denied = enforce(
        access_key,
        "kms:ReEncryptTo",
        "kms",
        destination["Arn"].split(":")[3],
        resource_arn=destination["Arn"],
        service_context=conditions,
    )
    if denied:
        who = getattr(denied, "principal_arn", "")
        raise Refused(
            "AccessDeniedException",
            f"User: {who} is not authorized to perform: kms:ReEncryptTo on resource: "
            f"{destination['Arn']}",
        )


async def encrypt(call: Call, operation: str, request: Fields) -> Response:
    """Checks and tags Encrypt, GenerateDataKey and GenerateDataKeyWithoutPlaintext."""
    context = request.get("EncryptionContext") or {}
    if sum(len(key) + len(value) for key, value in context.items()) > MAX_CONTEXT:
        raise Refused("ValidationException", "EncryptionContext is too large")
    plaintext = unbase64(request.get("Plaintext"))
    if operation == "Encrypt" and not 1 <= len(plaintext) <= 4096:
        raise Refused("ValidationException", "plaintext has 1 to 4096 bytes")
    if operation != "Encrypt" and ("KeySpec" in request) == ("NumberOfBytes" in request):
        raise Refused("ValidationException", "Please specify either number of bytes or key spec.")
    key = key_of(request.get("KeyId"))
    response = await call(operation, request)
    return tagged(key, response) if key and "_symmetric_key" in key else response


async def decrypt(call: Call, request: Fields) -> Response:
    key_id = request.get("KeyId")
    asymmetric = key_of(key_id)
    if asymmetric and "_private_key" in asymmetric:
        return await call("Decrypt", request)
    key, blob, _ = untagged(unbase64(request.get("CiphertextBlob")), key_id)
    return await opened(call, key, blob, request.get("EncryptionContext"))


async def reencrypt(call: Call, request: Fields, headers: Headers) -> Response:
    blob = unbase64(request.get("CiphertextBlob"))
    key, blob, material = untagged(blob, request.get("SourceKeyId"))
    plaintext = await opened(call, key, blob, request.get("SourceEncryptionContext"))
    if plaintext[0] != 200:
        return plaintext
    authorize_reencrypt_to(headers, request)
    destination = {
        "KeyId": request["DestinationKeyId"],
        "Plaintext": json.loads(plaintext[2])["Plaintext"],
        "EncryptionContext": request.get("DestinationEncryptionContext") or {},
    }
    wrapped = await encrypt(call, "Encrypt", destination)
    if wrapped[0] != 200:
        return wrapped
    fields = json.loads(wrapped[2])
    fields["SourceKeyId"] = key["Arn"]
    fields["SourceKeyMaterialId"] = material
    fields["DestinationKeyMaterialId"] = fields.pop("KeyMaterialId")
    for side in ("Source", "Destination"):
        fields[f"{side}EncryptionAlgorithm"] = "SYMMETRIC_DEFAULT"
    return json_response(fields)


async def opened(call: Call, key: Fields, blob: bytes, context: Fields | None) -> Response:
    """Decrypts ministack's blob."""
    request = {
        "CiphertextBlob": base64.b64encode(blob).decode(),
        "KeyId": key["Arn"],
        "EncryptionContext": context or {},
    }
    return await call("Decrypt", request)


def rotation(operation: str, request: Fields) -> Response:
    """Responds to RotateKeyOnDemand and ListKeyRotations, which ministack does not have."""
    key = key_of(request.get("KeyId"))
    if not key:
        raise Refused("NotFoundException", "no such key")
    rotations = key.setdefault("_rotations", [])
    if operation == "ListKeyRotations":
        return json_response({"Rotations": rotations, "Truncated": False})
    rotations.append(
        {"KeyId": key["KeyId"], "RotationDate": time.time(), "RotationType": "ON_DEMAND"}
    )
    return json_response({"KeyId": key["KeyId"]})


def install() -> None:
    inner = kms.handle_request

    async def handle_request(
        method: str, path: str, headers: Headers, body: bytes, query: Any
    ) -> Response:
        operation, request = operation_of(headers), body_of(body)

        async def call(name: str, arguments: Fields) -> Response:
            target = {**headers, "x-amz-target": f"TrentService.{name}"}
            return await inner(method, path, target, json.dumps(arguments).encode(), query)

        try:
            match operation:
                case "Encrypt" | "GenerateDataKey" | "GenerateDataKeyWithoutPlaintext":
                    return await encrypt(call, operation, request)
                case "Decrypt":
                    return await decrypt(call, request)
                case "ReEncrypt":
                    return await reencrypt(call, request, headers)
                case "RotateKeyOnDemand" | "ListKeyRotations":
                    return rotation(operation, request)
        except Refused as refused:
            return refused.response
        return await inner(method, path, headers, body, query)

    kms.handle_request = handle_request
