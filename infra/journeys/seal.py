"""The seal, the hash of an event and the ciphertext, written from their specification alone."""

import base64
import hashlib
import hmac
import struct
from typing import Any

from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.ciphers import Cipher, algorithms, modes
from cryptography.hazmat.primitives.kdf.hkdf import HKDF

# The attributes that the seal does not cover.
UNSEALED = {"key", "hmac", "seal"}


def length_prefixed(value: bytes) -> bytes:
    return struct.pack(">Q", len(value)) + value


def entry(name: str, tag: bytes, value: bytes) -> bytes:
    return length_prefixed(name.encode()) + tag + length_prefixed(value)


def canonical(attributes: dict[str, Any]) -> bytes:
    """Returns the attributes as the seal and the hash cover them, sorted by name."""
    out = b""
    for name in sorted(attributes, key=str.encode):
        value = attributes[name]
        if isinstance(value, bool):
            out += entry(name, b"?", bytes([value]))
        elif isinstance(value, str):
            out += entry(name, b"S", value.encode())
        elif isinstance(value, dict):
            out += entry(name, b"M", canonical(value))
        elif isinstance(value, set):
            members = sorted(member.encode() for member in value)
            out += entry(name, b"L", b"".join(map(length_prefixed, members)))
        elif hasattr(value, "value"):
            out += entry(name, b"B", value.value)
        else:
            out += entry(name, b"N", str(value).encode())
    return out


def seal_of(data_key: bytes, row: dict[str, Any]) -> str:
    """Returns the seal of a row: HMAC-SHA256 under a key derived from the data key, in base64."""
    sealing_key = HKDF(hashes.SHA256(), 32, None, b"coffer/seal/v1").derive(data_key)
    covered = {name: value for name, value in row.items() if name not in UNSEALED}
    seal = hmac.new(sealing_key, canonical(covered), hashlib.sha256).digest()
    return base64.b64encode(seal).decode()


def hash_of(event: dict[str, Any]) -> bytes:
    """Returns the hash of an event, as the next event of its chain stores it."""
    covered = {name: value for name, value in event.items() if name != "hash"}
    return hashlib.sha256(canonical(covered)).digest()


def ctr(key: bytes, first_block: bytes, data: bytes) -> bytes:
    """Encrypts or decrypts with AES in counter mode."""
    return Cipher(algorithms.AES(key), modes.CTR(first_block)).encryptor().update(data)
