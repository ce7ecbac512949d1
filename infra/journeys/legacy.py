"""Rows as other clients write them, sealed under data keys of a KMS key of one's choice."""

import base64
import hashlib
import hmac
import struct

from boto3.dynamodb.types import Binary
from cryptography.hazmat.primitives.ciphers import Cipher, algorithms, modes
from seal import ctr

ONE, ZERO = (1).to_bytes(16, "big"), bytes(16)
DIGESTS = {"SHA": "sha1", "SHA224": "sha224", "SHA256": "sha256", "SHA384": "sha384",
           "SHA512": "sha512", "MD5": "md5"}


def little(key, data):
    """AES-256-CTR with rucredstash's 32-bit little-endian counter."""
    blocks = (struct.pack("<I", number) + bytes(11) + b"\x01" for number in range(len(data) // 16 + 1))
    stream = Cipher(algorithms.AES(key), modes.ECB()).encryptor().update(b"".join(blocks))
    return bytes(a ^ b for a, b in zip(data, stream))


class Writer:
    """Makes rows; `kms_key` wraps their data keys."""

    def __init__(self, kms, kms_key):
        self.kms, self.kms_key = kms, kms_key

    def row(self, name, secret, dialect="credstash", version=1, context=None, digest="SHA256", **more):
        answer = self.kms.generate_data_key(
            KeyId=self.kms_key, NumberOfBytes=64, EncryptionContext=context or {}
        )
        key, wrapped = answer["Plaintext"], answer["CiphertextBlob"]
        data = secret.encode() if isinstance(secret, str) else secret
        if dialect == "rucredstash":
            contents = little(key[:32], data)
        else:
            contents = ctr(key[:32], ZERO if dialect == "haskell" else ONE, data)
        mac = hmac.new(key[32:], contents, DIGESTS[digest]).hexdigest()
        row = {"name": name, "version": f"{version:019}", **more}
        if dialect == "haskell":
            revision = hashlib.sha1(name.encode()).hexdigest()[:7].encode()
            return {**row, "key": Binary(wrapped), "contents": Binary(contents), "hmac": mac,
                    "revision": Binary(revision)}
        mac = mac if dialect == "nodecredstash" else Binary(mac.encode())
        return {**row, "key": base64.b64encode(wrapped).decode(), "digest": digest, "hmac": mac,
                "contents": base64.b64encode(contents).decode()}

    def ambiguous(self, name):
        """A row that both credstash and rucredstash may have written: text either way."""
        while True:
            row = self.row(name, "seventeen letters")
            key = self.kms.decrypt(CiphertextBlob=base64.b64decode(row["key"]))["Plaintext"]
            try:
                little(key[:32], base64.b64decode(row["contents"])).decode()
                return row
            except UnicodeDecodeError:
                pass
