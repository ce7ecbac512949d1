"""KMS as AWS answers: tampered blobs and wrong keys refused, sizes limited, ReEncrypt there, and key
material that a rotation renews: each blob says under which it was wrapped."""

import base64
import hashlib
import hmac
import json
import time

import ministack.app
from ministack.core.iam_evaluator import enforce
from ministack.core.responses import error_response_json, json_response
from ministack.services import kms

from .request import body_of, key_of, operation_of, unbase64

# Behind ministack's blob: the number of the key material, and a tag over all of it.
MATERIAL = 4
TAG = 32
# ministack's blob: 36 bytes of key id before IV, ciphertext and its own tag.
KEY_ID = 36
MAX_CONTEXT = 8192


def error(code, message=""):
    return error_response_json(code, message, 400)


def tag(key, blob):
    return hmac.new(key["_symmetric_key"], b"t" + blob, hashlib.sha256).digest()


def material_id(key, number):
    """The id of a key's material, the first one's or that of its so manieth rotation."""
    return hashlib.sha256(f"{key['KeyId']} {number}".encode()).hexdigest()


def newest(key):
    return len(key.get("_rotations", []))


def tagged(key, response):
    """The response with its blob's material and tag appended."""
    status, headers, body = response
    if status != 200:
        return response
    answer = json.loads(body)
    blob = unbase64(answer["CiphertextBlob"]) + newest(key).to_bytes(MATERIAL, "big")
    answer["CiphertextBlob"] = base64.b64encode(blob + tag(key, blob)).decode()
    answer["KeyMaterialId"] = material_id(key, newest(key))
    return status, headers, json.dumps(answer).encode()


def untagged(blob, key_id):
    """The key of a blob, the blob as ministack made it and the id of its key material, or the
    error that AWS gives."""
    whole = len(blob) > KEY_ID + MATERIAL + TAG
    key = key_of(blob[:KEY_ID].decode("utf8", "ignore")) if whole else None
    if key is None or "_symmetric_key" not in key:
        return None, None, None, error("InvalidCiphertextException")
    if key_id:
        wanted = key_of(key_id)
        if wanted is None:
            return None, None, None, error("NotFoundException", f"Key '{key_id}' does not exist")
        if wanted["KeyId"] != key["KeyId"]:
            # A key that cannot be used says so before it looks at what it is to unwrap.
            if wanted.get("KeyState") == "Disabled":
                return None, None, None, error("DisabledException", f"{wanted['Arn']} is disabled.")
            return None, None, None, error(
                "IncorrectKeyException",
                "The key ID in the request does not identify a CMK that can perform this operation.",
            )
    if not hmac.compare_digest(tag(key, blob[:-TAG]), blob[-TAG:]):
        return None, None, None, error("InvalidCiphertextException")
    number = int.from_bytes(blob[-TAG - MATERIAL : -TAG], "big")
    return key, blob[: -TAG - MATERIAL], material_id(key, number), None


def refused_reencrypt_to(headers, request):
    """The second half of ReEncrypt's authorization: the destination key."""
    destination = key_of(request.get("DestinationKeyId"))
    if not ministack.app.AUTH or not destination:
        return None
    context = request.get("DestinationEncryptionContext") or {}
    conditions = {f"kms:EncryptionContext:{key}": value for key, value in context.items()}
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
    if not denied:
        return None
    who = getattr(denied, "principal_arn", "")
    return error(
        "AccessDeniedException",
        f"User: {who} is not authorized to perform: kms:ReEncryptTo on resource: {destination['Arn']}",
    )


def install():
    inner = kms.handle_request

    async def handle_request(method, path, headers, body, query):
        operation, request = operation_of(headers), body_of(body)

        async def call(name, arguments):
            target = {**headers, "x-amz-target": f"TrentService.{name}"}
            return await inner(method, path, target, json.dumps(arguments).encode(), query)

        async def again(name, arguments):
            target = {**headers, "x-amz-target": f"TrentService.{name}"}
            return await handle_request(
                method, path, target, json.dumps(arguments).encode(), query
            )

        if operation in ("Encrypt", "GenerateDataKey", "GenerateDataKeyWithoutPlaintext"):
            context = request.get("EncryptionContext") or {}
            if sum(len(key) + len(value) for key, value in context.items()) > MAX_CONTEXT:
                return error("ValidationException", "EncryptionContext is too large")
            plaintext = unbase64(request.get("Plaintext"))
            if operation == "Encrypt" and not 1 <= len(plaintext) <= 4096:
                return error("ValidationException", "plaintext has 1 to 4096 bytes")
            if operation != "Encrypt" and ("KeySpec" in request) == ("NumberOfBytes" in request):
                return error(
                    "ValidationException", "Please specify either number of bytes or key spec."
                )
            key = key_of(request.get("KeyId"))
            response = await call(operation, request)
            return tagged(key, response) if key and "_symmetric_key" in key else response

        if operation in ("Decrypt", "ReEncrypt"):
            decrypt = operation == "Decrypt"
            key_id = request.get("KeyId" if decrypt else "SourceKeyId")
            asymmetric = key_of(key_id)
            if decrypt and asymmetric and "_private_key" in asymmetric:
                return await call(operation, request)
            key, blob, material, refused = untagged(unbase64(request.get("CiphertextBlob")), key_id)
            if refused:
                return refused
            context = request.get("EncryptionContext" if decrypt else "SourceEncryptionContext")
            opened = await call(
                "Decrypt",
                {
                    "CiphertextBlob": base64.b64encode(blob).decode(),
                    "KeyId": key["Arn"],
                    "EncryptionContext": context or {},
                },
            )
            if decrypt or opened[0] != 200:
                return opened
            refused = refused_reencrypt_to(headers, request)
            if refused:
                return refused
            wrapped = await again(
                "Encrypt",
                {
                    "KeyId": request["DestinationKeyId"],
                    "Plaintext": json.loads(opened[2])["Plaintext"],
                    "EncryptionContext": request.get("DestinationEncryptionContext") or {},
                },
            )
            if wrapped[0] != 200:
                return wrapped
            answer = json.loads(wrapped[2])
            answer["SourceKeyId"] = key["Arn"]
            answer["SourceKeyMaterialId"] = material
            answer["DestinationKeyMaterialId"] = answer.pop("KeyMaterialId")
            for side in ("Source", "Destination"):
                answer[f"{side}EncryptionAlgorithm"] = "SYMMETRIC_DEFAULT"
            return json_response(answer)

        if operation in ("RotateKeyOnDemand", "ListKeyRotations"):
            key = key_of(request.get("KeyId"))
            if not key:
                return error("NotFoundException", "no such key")
            rotations = key.setdefault("_rotations", [])
            if operation == "ListKeyRotations":
                return json_response({"Rotations": rotations, "Truncated": False})
            rotations.append(
                {
                    "KeyId": key["KeyId"],
                    "RotationDate": time.time(),
                    "RotationType": "ON_DEMAND",
                }
            )
            return json_response({"KeyId": key["KeyId"]})

        return await inner(method, path, headers, body, query)

    kms.handle_request = handle_request
