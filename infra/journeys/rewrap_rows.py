"""A stack of its own with 2,000 rows to rewrap; writes and interruptions during a run."""

import base64
import os
import random
import re
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from types import TracebackType
from typing import Any, Self

import credstash

import rotation
from conftest import REGION, NodeClient, Response, Stack, client
from legacy import Writer
from tables import scan

SEALED, LEGACY, DELETED = 400, 1600, 300
CONTEXT = {"team": "payments"}
KINDS = ["credstash", "nodecredstash", "haskell", "rucredstash", "old digest", "with a context"]
HINTS = {"contexts": [{"prefix": "legacy/with a context", "context": CONTEXT}]}


@dataclass
class Rows:
    """The rows of the stack as they were put."""

    rotating: rotation.Rotating
    stack: Stack
    # The value and the encryption context of each name.
    values: dict[str, tuple[str, dict[str, str]]] = field(default_factory=dict)
    deleted: list[str] = field(default_factory=list)
    # The old client that can read a name, or "both".
    readers: dict[str, str] = field(default_factory=dict)
    key: str = ""
    # When versions were last moved between table and ledger, in Unix time.
    moved_at: float = 0


def populate(rotating: rotation.Rotating, stack: Stack, kms: Any, key: str) -> Rows:
    """Puts rows of every dialect under one KMS key, and deletes some of them."""
    rows, writer = Rows(rotating, stack), Writer(kms, key)
    with ThreadPoolExecutor(8) as pool:
        list(pool.map(lambda number: put_legacy(rows, writer, number), range(LEGACY)))
    for start in range(0, SEALED, 50):
        puts: list[dict[str, Any]] = [
            {"name": f"sealed/{number:04}", "secret": f"sealed {number}", "context": CONTEXT}
            for number in range(start, start + 50)
        ]
        stack.done("put", prefix="sealed", secrets=puts)
        for put in puts:
            rows.values[put["name"]] = (put["secret"], CONTEXT)
            rows.readers[put["name"]] = "both"
    rows.deleted = random.Random(4).sample(sorted(rows.values), DELETED)
    with ThreadPoolExecutor(8) as pool:
        list(pool.map(lambda name: stack.done("delete", name=name), rows.deleted))
    return rows


def put_legacy(rows: Rows, writer: Writer, number: int) -> None:
    kind = KINDS[number % len(KINDS)]
    # Long enough that no wrong reading is valid UTF-8 by chance.
    name, secret = f"legacy/{kind}/{number:04}", f"value {number}, " + "☃ of some length " * 5
    dialect = kind if kind in ("nodecredstash", "haskell", "rucredstash") else "credstash"
    context = CONTEXT if kind == "with a context" else None
    digest = "MD5" if kind == "old digest" else "SHA256"
    row = writer.row(name, secret, dialect, context=context, digest=digest, comment="old")
    rows.stack.rows.put_item(Item=row)
    rows.values[name] = (secret, context or {})
    if kind in ("credstash", "nodecredstash", "old digest", "with a context"):
        rows.readers[name] = "nodecredstash" if kind == "nodecredstash" else "credstash"


def everything_opens(rows: Rows, nodecredstash: NodeClient) -> None:
    """Reads every live secret with Coffer, and those that old clients can read with these."""
    live = sorted(set(rows.values) - set(rows.deleted))

    def opens(name: str) -> None:
        secret, context = rows.values[name]
        assert rows.stack.get(name, context=context)["secret"] == secret, name

    with ThreadPoolExecutor(8) as pool:
        list(pool.map(opens, live))
    table = rows.stack.table
    for name in live:
        secret, context = rows.values[name]
        if rows.readers.get(name) in ("nodecredstash", "both"):
            got = nodecredstash("getSecret", tableName=table, name=name, context=context)
            assert got == {"ok": secret}, name
    # In this process, because credstash takes most of a second to start.
    for name in live[::4]:
        secret, context = rows.values[name]
        if rows.readers.get(name):
            value = credstash.getSecret(name, table=table, context=context, region=REGION)
            assert value == secret, name


def wrapped_by(kms: Any, stack: Stack) -> dict[str, int]:
    """Returns how many rows of the table and the ledger each KMS key wrapped, by key id."""
    counts: dict[str, int] = {}
    items = [*scan(stack.rows), *(item["row"] for item in scan(stack.entries) if "row" in item)]
    for item in items:
        key = item["key"]
        blob = base64.b64decode(key) if isinstance(key, str) else key.value
        # A ciphertext of ministack begins with the id of its key.
        counts.setdefault(blob[:36].decode(), 0)
        counts[blob[:36].decode()] += 1
    return counts


# The log of a function says this if AWS did not respond.
NO_RESPONSE = re.compile(": timeout|: connection failed|deadline has elapsed")


class Writers:
    """Clients that put, delete and restore during a run.

    They retry with the same token if AWS did not respond, as every client does.
    """

    def __init__(self, stack: Stack, moving: list[str]) -> None:
        self.stack, self.moving = stack, list(moving)
        # The value of each version that was put.
        self.put: dict[tuple[str, int], str] = {}
        self.refused: list[Any] = []
        self.retries = 0
        self.over = threading.Event()

    def __enter__(self) -> Self:
        self.threads = [threading.Thread(target=self.write, args=(n,)) for n in range(3)]
        self.threads.append(threading.Thread(target=self.move))
        for thread in self.threads:
            thread.start()
        return self

    def send(self, verb: str, request: dict[str, Any]) -> tuple[Response, int]:
        """Sends a request until there is a response. Returns it and the number of tries."""
        tries = 1
        while True:
            response = self.stack.invoke(verb, request)
            # Every other error counts as refused, also that others are writing the same name.
            responded = response.code != "Unavailable" or not NO_RESPONSE.search(response.log)
            if responded or tries == 20:
                return response, tries
            tries += 1
            self.retries += 1

    def write(self, number: int) -> None:
        """Puts one version after the other, under five names."""
        count = 0
        while not self.over.is_set():
            count += 1
            name, secret = f"meanwhile/{number}/{count % 5}", f"{number} {count}"
            token = f"writer-{number}-{count}-of-{os.getpid()}"
            response, _ = self.send("put", {"name": name, "secret": secret, "token": token})
            if response.code == "OK":
                self.put[name, response.body["version"]] = secret
            else:
                self.refused.append(response)

    def move(self) -> None:
        """Deletes and restores names again and again, so that they move past the run."""
        while not self.over.is_set():
            for verb in ("delete", "restore"):
                for name in self.moving:
                    response, tries = self.send(verb, {"name": name})
                    # An earlier try without a response may have succeeded.
                    if response.code != "OK" and (response.code, tries > 1) != ("NotFound", True):
                        self.refused.append((verb, name, response))

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.over.set()
        for thread in self.threads:
            thread.join()


def interrupt(stack: Stack, execution: str, how: str) -> None:
    """Interrupts a run: stops its execution, or kills the function's processes."""
    if how == "stopped":
        client("stepfunctions").stop_execution(executionArn=execution)
    else:
        # A change of its configuration kills the processes of a function, busy or not.
        function = stack.functions["rewrap"]
        functions = client("lambda")
        config = functions.get_function_configuration(FunctionName=function)
        variables = {**config["Environment"]["Variables"], "KILLED": str(time.time())}
        functions.update_function_configuration(
            FunctionName=function, Environment={"Variables": variables}
        )


def rewrap_with_interruptions(
    stack: Stack, chance: random.Random
) -> tuple[dict[str, Any], list[tuple[str, int]]]:
    """Does a run that is interrupted three times.

    Returns the description of the last execution, and how many rows were done at each interruption.
    """
    points: list[tuple[str, int]] = []
    execution = rotation.start(stack, "rewrap", **HINTS)
    for how in ("stopped", "killed", "stopped"):
        target = chance.randint(150, 500) * (len(points) + 1)
        while True:
            seen = rotation.report(stack, "rewrap")["seen"] if points or started(stack) else 0
            if seen >= target:
                break
            assert not has_ended(execution), "the run ended before it could be interrupted"
            time.sleep(0.05)
        interrupt(stack, execution, how)
        points.append((how, seen))
        if how == "stopped":
            execution = rotation.start(stack, "rewrap", **HINTS)
    return rotation.ended(execution), points


def started(stack: Stack) -> bool:
    return stack.invoke("list", {"list": "report", "action": "rewrap"}).code == "OK"


def has_ended(execution: str) -> bool:
    return client("stepfunctions").describe_execution(executionArn=execution)["status"] != "RUNNING"
