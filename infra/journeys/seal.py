"""The seal, the hash of an event and the ciphertext, from the README's description of them alone."""

import base64
import hashlib
import hmac
import struct

from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.ciphers import Cipher, algorithms, modes
from cryptography.hazmat.primitives.kdf.hkdf import HKDF

UNSEALED = {"key", "hmac", "seal"}


def length_prefixed(value):
    return struct.pack(">Q", len(value)) + value


def entry(name, tag, value):
    return length_prefixed(name.encode()) + tag + length_prefixed(value)


def canonical(attributes):
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


def seal_of(data_key, row):
    sealing_key = HKDF(hashes.SHA256(), 32, None, b"coffer/seal/v1").derive(data_key)
    covered = {name: value for name, value in row.items() if name not in UNSEALED}
    seal = hmac.new(sealing_key, canonical(covered), hashlib.sha256).digest()
    return base64.b64encode(seal).decode()


def hash_of(event):
    covered = {name: value for name, value in event.items() if name != "hash"}
    return hashlib.sha256(canonical(covered)).digest()


def ctr(key, first_block, data):
    return Cipher(algorithms.AES(key), modes.CTR(first_block)).encryptor().update(data)
