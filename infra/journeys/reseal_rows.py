"""A stack of its own with rows of every dialect to reseal: sound, damaged and ambiguous ones."""

import base64
from typing import Any

import rotation
from legacy import CLIENTS, Writer
from tables import scan
from vectors import VECTORS, row_of_vector

CONTEXT = {"team": "payments"}
HINTS = {"contexts": [{"prefix": "context", "context": CONTEXT}]}
VERSIONS = 30


class Rows:
    """Rows as they were written, and what a reseal should do with them.

    It seals those of `sound` and leaves those of `refused` unchanged.
    """

    def __init__(self, kms: Any) -> None:
        self.kms = kms
        self.rotating = rotation.Rotating("reseal")
        self.key = kms.create_key()["KeyMetadata"]["Arn"]
        self.stack = self.rotating.deploy(self.key)
        self.writer = Writer(kms, self.key)
        # The plaintext and the encryption context of each name.
        self.sound: dict[str, tuple[bytes, dict[str, str]]] = {}
        # The reason that a run reports for each name.
        self.refused: dict[str, str] = {}
        self.put_vectors()
        self.put_rows_of_clients()
        self.put_refused_rows()
        for version in range(1, VERSIONS + 1):
            self.put(self.writer.row("deep", f"value {version}", version=version, digest="SHA"))
        self.stack.put("sealed", "by coffer")
        # The names that are deleted before the reseal.
        self.deleted = [name for name in self.sound if name.startswith("deleted/")]
        for name in self.deleted:
            self.stack.done("delete", name=name)
        self.rows, self.entries = scan_by_key(self.stack.rows), scan_by_key(self.stack.entries)
        self.count = len(self.sound) + len(self.refused) + VERSIONS + 1

    def put(self, row: dict[str, Any]) -> None:
        self.stack.rows.put_item(Item=row)

    def put_vectors(self) -> None:
        for vector in VECTORS:
            if "plaintext" in vector["expect"]:
                plaintext = base64.b64decode(vector["expect"]["plaintext"])
                for prefix, context in (("vector", {}), ("context", CONTEXT), ("deleted", {})):
                    name = f"{prefix}/{vector['name']}"
                    self.put(row_of_vector(self.kms, self.key, vector, name, context))
                    self.sound[name] = (plaintext, context)
            else:
                name = f"bad/{vector['name']}"
                self.put(row_of_vector(self.kms, self.key, vector, name, {}))
                self.refused[name] = vector["expect"]["error"].lower()

    def put_rows_of_clients(self) -> None:
        for number in range(3):
            self.put(self.writer.ambiguous(f"bad/ambiguous {number}"))
            self.refused[f"bad/ambiguous {number}"] = "ambiguous"
        # Binary, but valid UTF-8 with rucredstash's counter. Only rows in credstash's own form are
        # ambiguous, because rucredstash writes no other form.
        value = b"sixteen letters.\xff"
        for client in CLIENTS:
            name = f"client/{client}"
            # Long enough that no other reading is valid UTF-8, and that base64 has several lines.
            text = "a password of theirs " * 5
            self.put(self.writer.row(f"{name}/text", text, client))
            self.sound[f"{name}/text"] = (text.encode(), {})
            if client == "credstash":
                self.put(self.writer.ambiguous("bad/ambiguous bytes", value))
                self.refused["bad/ambiguous bytes"] = "ambiguous"
            else:
                self.put(self.writer.ambiguous(f"{name}/bytes", value, client))
                self.sound[f"{name}/bytes"] = (value, {})
        self.put(self.writer.row("client/RIPEMD", "with a removed digest", digest="RIPEMD"))
        self.sound["client/RIPEMD"] = (b"with a removed digest", {})

    def put_refused_rows(self) -> None:
        writer = self.writer
        row = writer.row("bad/retyped", "a password of some length", "nodecredstash")
        self.put(writer.retyped(row))
        self.put({**writer.disguised(row), "name": "bad/disguised"})
        self.refused |= {"bad/retyped": "malformed", "bad/disguised": "integrity"}
        self.put({**writer.row("bad/list", "s"), "tags": ["a", "b"]})
        self.put({**writer.row("bad/comment", "s"), "comment": 7})
        self.refused |= {"bad/list": "unsealable", "bad/comment": "unsealable"}
        self.put(writer.row("bad/context", "s", context={"not": "known"}))
        self.refused["bad/context"] = "context"
        # As large as an item can be, without room for a seal.
        self.put(writer.row("bad/large", "x" * 306_800))
        self.refused["bad/large"] = "too-large"
        self.stack.put("bad/stripped", "s")
        row = self.stack.row("bad/stripped")
        del row["seal"]
        self.put(row)
        self.refused["bad/stripped"] = "stripped"


def scan_by_key(table: Any) -> dict[tuple[str, str], Any]:
    """Returns all items of a table by their keys."""
    return {(item["name"], item.get("version") or item["entry"]): item for item in scan(table)}
