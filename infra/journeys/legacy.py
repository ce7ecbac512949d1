"""Rows as other clients write them, sealed under data keys of a KMS key of one's choice."""

import base64
import hashlib
import hmac
import struct

from boto3.dynamodb.types import Binary
from cryptography.hazmat.primitives.ciphers import Cipher, algorithms, modes
from seal import ctr

ONE, ZERO = (1).to_bytes(16, "big"), bytes(16)
DIGESTS = {"SHA": "sha1", "SHA1": "sha1", "SHA224": "sha224", "SHA256": "sha256", "SHA384": "sha384",
           "SHA512": "sha512", "MD5": "md5", "RIPEMD": "ripemd160"}
# How each client that writes as credstash does differs from it: whether `hmac` is B, how `digest` is
# spelled (None where there is none), how the hex of the MAC and the base64 are written.
CLIENTS = {
    "credstash": {},
    "nodecredstash": {"hmac": "S"},
    "nodecredstash sha256": {"hmac": "S", "digest": str.lower},
    "unicreds": {"digest": None},
    "older unicreds": {"hmac": "S", "digest": None},
    "jcredstash": {"hmac": "S", "digest": None},
    "rcredstash": {"hmac": "S", "digest": None, "lines": (60, "\n")},
    "MIME": {"hmac": "S", "digest": None, "lines": (76, "\r\n")},
    "upper case": {"hmac": "S", "digest": None, "hex": str.upper},
}


def encoded(data, lines=None):
    """Base64, in one line or in lines of so many columns that each end so."""
    text = base64.b64encode(data).decode()
    if not lines:
        return text
    columns, end = lines
    starts = range(0, len(text), columns)
    return "".join(text[start:start + columns] + end for start in starts)


def little(key, data):
    """AES-256-CTR with rucredstash's 32-bit little-endian counter."""
    blocks = (struct.pack("<I", number) + bytes(11) + b"\x01" for number in range(len(data) // 16 + 1))
    stream = Cipher(algorithms.AES(key), modes.ECB()).encryptor().update(b"".join(blocks))
    return bytes(a ^ b for a, b in zip(data, stream))


class Writer:
    """Makes rows; `kms_key` wraps their data keys."""

    def __init__(self, kms, kms_key):
        self.kms, self.kms_key, self.keys = kms, kms_key, {}

    def row(self, name, secret, dialect="credstash", version=1, context=None, digest="SHA256", **more):
        answer = self.kms.generate_data_key(
            KeyId=self.kms_key, NumberOfBytes=64, EncryptionContext=context or {}
        )
        key, wrapped = answer["Plaintext"], answer["CiphertextBlob"]
        self.keys[wrapped] = key
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
        form = CLIENTS.get(dialect, {})
        mac = form.get("hex", str)(mac)
        row["hmac"] = mac if form.get("hmac") == "S" else Binary(mac.encode())
        spelled = form.get("digest", str)
        if spelled:
            row["digest"] = spelled(digest)
        lines = form.get("lines")
        return {**row, "key": encoded(wrapped, lines), "contents": encoded(contents, lines)}

    def read_as_rucredstash(self, row):
        """What the value of a row of this writer is for rucredstash."""
        key = self.keys[base64.b64decode(row["key"])]
        return little(key[:32], base64.b64decode(row["contents"]))

    def ambiguous(self, name, secret="seventeen letters", dialect="credstash"):
        """A row whose value is text for rucredstash."""
        while True:
            row = self.row(name, secret, dialect)
            try:
                self.read_as_rucredstash(row).decode()
                return row
            except UnicodeDecodeError:
                pass

    @staticmethod
    def retyped(row):
        """A row whose text somebody has stored as bytes, as Haskell's client does."""
        raw = {field: Binary(base64.b64decode(row[field])) for field in ("key", "contents")}
        return {**row, **raw}

    @staticmethod
    def disguised(row):
        """The same, with all that Haskell's client writes."""
        row = {**Writer.retyped(row), "revision": Binary(b"d2bc0c9")}
        del row["digest"]
        return row
