"""Rows as other clients write them, encrypted with data keys of a given KMS key."""

import base64
import hashlib
import hmac
import struct
from collections.abc import Callable
from typing import Any

from boto3.dynamodb.types import Binary
from cryptography.hazmat.primitives.ciphers import Cipher, algorithms, modes

from seal import ctr

ONE, ZERO = (1).to_bytes(16, "big"), bytes(16)
# The digests that a row can name, as hashlib names them.
DIGESTS = {
    "SHA": "sha1",
    "SHA1": "sha1",
    "SHA224": "sha224",
    "SHA256": "sha256",
    "SHA384": "sha384",
    "SHA512": "sha512",
    "MD5": "md5",
    "RIPEMD": "ripemd160",
}
# Clients that write credstash's format, with their differences from credstash: the type of `hmac`
# (B by default), the spelling of `digest` (None: absent), the case of the MAC's hex digits, and the
# lines of base64 (columns, line end).
CLIENTS: dict[str, dict[str, Any]] = {
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


def encoded(data: bytes, lines: tuple[int, str] | None = None) -> str:
    """Returns base64 in one line, or in lines of (columns, line end)."""
    text = base64.b64encode(data).decode()
    if not lines:
        return text
    columns, end = lines
    starts = range(0, len(text), columns)
    return "".join(text[start : start + columns] + end for start in starts)


def little(key: bytes, data: bytes) -> bytes:
    """Encrypts or decrypts with AES-256-CTR and rucredstash's 32-bit little-endian counter."""
    numbers = range(len(data) // 16 + 1)
    blocks = (struct.pack("<I", number) + bytes(11) + b"\x01" for number in numbers)
    stream = Cipher(algorithms.AES(key), modes.ECB()).encryptor().update(b"".join(blocks))
    return bytes(a ^ b for a, b in zip(data, stream, strict=False))


class Writer:
    """Makes rows; `kms_key` wraps their data keys."""

    def __init__(self, kms: Any, kms_key: str) -> None:
        self.kms, self.kms_key = kms, kms_key
        # The data keys, by their wrapped keys.
        self.keys: dict[bytes, bytes] = {}

    def row(
        self,
        name: str,
        secret: str | bytes,
        dialect: str = "credstash",
        version: int = 1,
        context: dict[str, str] | None = None,
        digest: str = "SHA256",
        **attributes: Any,
    ) -> dict[str, Any]:
        """Returns a row in the format of `dialect`.

        That is "rucredstash", "haskell" or one of `CLIENTS`. `attributes` are added to the row.
        """
        generated = self.kms.generate_data_key(
            KeyId=self.kms_key, NumberOfBytes=64, EncryptionContext=context or {}
        )
        key, wrapped = generated["Plaintext"], generated["CiphertextBlob"]
        self.keys[wrapped] = key
        data = secret.encode() if isinstance(secret, str) else secret
        if dialect == "rucredstash":
            contents = little(key[:32], data)
        else:
            contents = ctr(key[:32], ZERO if dialect == "haskell" else ONE, data)
        mac = hmac.new(key[32:], contents, DIGESTS[digest]).hexdigest()
        row = {"name": name, "version": f"{version:019}", **attributes}
        if dialect == "haskell":
            revision = hashlib.sha1(name.encode()).hexdigest()[:7].encode()
            return {
                **row,
                "key": Binary(wrapped),
                "contents": Binary(contents),
                "hmac": mac,
                "revision": Binary(revision),
            }
        form = CLIENTS.get(dialect, {})
        mac = form.get("hex", str)(mac)
        row["hmac"] = mac if form.get("hmac") == "S" else Binary(mac.encode())
        spell: Callable[[str], str] | None = form.get("digest", str)
        if spell:
            row["digest"] = spell(digest)
        lines = form.get("lines")
        return {**row, "key": encoded(wrapped, lines), "contents": encoded(contents, lines)}

    def read_as_rucredstash(self, row: dict[str, Any]) -> bytes:
        """Decrypts a row of this writer as rucredstash does."""
        key = self.keys[base64.b64decode(row["key"])]
        return little(key[:32], base64.b64decode(row["contents"]))

    def ambiguous(
        self, name: str, secret: str | bytes = "seventeen letters", dialect: str = "credstash"
    ) -> dict[str, Any]:
        """Returns a row that rucredstash's counter decrypts to valid UTF-8, too."""
        while True:
            row = self.row(name, secret, dialect)
            try:
                self.read_as_rucredstash(row).decode()
                return row
            except UnicodeDecodeError:
                pass

    @staticmethod
    def retyped(row: dict[str, Any]) -> dict[str, Any]:
        """Returns a row with its text stored as bytes, as the Haskell client does."""
        raw = {field: Binary(base64.b64decode(row[field])) for field in ("key", "contents")}
        return {**row, **raw}

    @staticmethod
    def disguised(row: dict[str, Any]) -> dict[str, Any]:
        """Returns a row that looks as if the Haskell client had written it."""
        row = {**Writer.retyped(row), "revision": Binary(b"d2bc0c9")}
        del row["digest"]
        return row
