"""The hash of a ledger's entry, from the documented format and with none of Coffer's code."""

import hashlib


def part(data):
    return len(data).to_bytes(8, "big") + data


def canonical(entry):
    out = b""
    for name in sorted(entry, key=str.encode):
        value = entry[name]
        if isinstance(value, bool):
            tag, data = b"?", bytes([value])
        elif isinstance(value, str):
            tag, data = b"S", value.encode()
        elif isinstance(value, set):
            tag = b"L"
            data = b"".join(part(member) for member in sorted(m.encode() for m in value))
        elif hasattr(value, "value"):
            tag, data = b"B", bytes(value.value)
        else:
            tag, data = b"N", str(value).encode()
        out += part(name.encode()) + tag + part(data)
    return out


def hash_of(entry):
    rest = {name: value for name, value in entry.items() if name != "hash"}
    return hashlib.sha256(canonical(rest)).digest()
