"""Data keys wrapped anew, over everything and by name, while others write, through interruptions
and throttling; then the old key is disabled, and everything opens."""

import json
import os
import random
import re
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from datetime import datetime, timezone

import credstash
import pytest
import rotation
from conftest import ROOT, Stack, client
from legacy import Writer

SEALED, LEGACY, DELETED = 400, 1600, 300
CONTEXT = {"team": "payments"}
WAYS = ["credstash", "nodecredstash", "haskell", "rucredstash", "old digest", "with a context"]
# What the stacks of `rotation` are deployed with.
RATE = 400


@dataclass
class Rows:
    """What was put where: name to (value, context), and the names that are deleted."""

    rotating: rotation.Rotating
    stack: Stack
    values: dict = field(default_factory=dict)
    deleted: list = field(default_factory=list)
    readers: dict = field(default_factory=dict)
    key: str = ""
    moved_at: float = 0


def populate(rotating, stack, kms, key):
    """Rows of every dialect under one key, live and deleted."""
    rows, writer = Rows(rotating, stack), Writer(kms, key)

    def legacy(number):
        way = WAYS[number % len(WAYS)]
        # So long that no reading of it is text by chance.
        name, secret = f"legacy/{way}/{number:04}", f"value {number}, " + "☃ of some length " * 5
        dialect = way if way in ("nodecredstash", "haskell", "rucredstash") else "credstash"
        context = CONTEXT if way == "with a context" else None
        digest = "MD5" if way == "old digest" else "SHA256"
        row = writer.row(name, secret, dialect, context=context, digest=digest, comment="old")
        stack.rows.put_item(Item=row)
        rows.values[name] = (secret, context or {})
        if way in ("credstash", "nodecredstash", "old digest", "with a context"):
            rows.readers[name] = "nodecredstash" if way == "nodecredstash" else "credstash"

    with ThreadPoolExecutor(8) as pool:
        list(pool.map(legacy, range(LEGACY)))
    for start in range(0, SEALED, 50):
        puts = [
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


# What the log says where AWS gave no answer.
NO_ANSWER = re.compile(": timeout|: connection failed|deadline has elapsed")


class Writers:
    """Others, who put and restore and delete while a run goes on. As every client does, they try
    again where AWS gave no answer, with the token that makes it once."""

    def __init__(self, stack, moving):
        self.stack, self.moving = stack, list(moving)
        self.put, self.refused, self.unanswered = {}, [], 0
        self.over = threading.Event()

    def __enter__(self):
        self.threads = [threading.Thread(target=self.write, args=(n,)) for n in range(3)]
        self.threads.append(threading.Thread(target=self.move))
        for thread in self.threads:
            thread.start()
        return self

    def answered(self, verb, event):
        """What became of it, and how often it was tried."""
        for tries in range(1, 21):
            answer = self.stack.invoke(verb, event)
            # All else, also that others are in the way, counts as refused.
            if answer.code != "Unavailable" or not NO_ANSWER.search(answer.log):
                break
            self.unanswered += 1
        return answer, tries

    def write(self, number):
        count = 0
        while not self.over.is_set():
            count += 1
            name, secret = f"meanwhile/{number}/{count % 5}", f"{number} {count}"
            token = f"writer-{number}-{count}-of-{os.getpid()}"
            answer, _ = self.answered("put", {"name": name, "secret": secret, "token": token})
            if answer.code == "OK":
                self.put[name, answer.body["version"]] = secret
            else:
                self.refused.append(answer)

    def move(self):
        """Takes names to the ledger and back, past the place where the run is."""
        while not self.over.is_set():
            for verb in ("delete", "restore"):
                for name in self.moving:
                    answer, tries = self.answered(verb, {"name": name})
                    # A try without an answer may have done it.
                    if answer.code != "OK" and (answer.code, tries > 1) != ("NotFound", True):
                        self.refused.append((verb, name, answer))

    def __exit__(self, *_):
        self.over.set()
        for thread in self.threads:
            thread.join()


@pytest.fixture(scope="module")
def old_key(kms):
    return kms.create_key()["KeyMetadata"]["Arn"]


@pytest.fixture(scope="module")
def new_key(kms):
    return kms.create_key()["KeyMetadata"]["Arn"]


@pytest.fixture(scope="module")
def rows(kms, old_key):
    rotating = rotation.Rotating("rewrap")
    return populate(rotating, rotating.deploy(old_key), kms, old_key)


HINTS = {"contexts": [{"prefix": "legacy/with a context", "context": CONTEXT}]}


def wrapped_by(kms, stack):
    """Which keys wrapped what lies in the table and in the ledger: ARN to count."""
    import base64

    counts = {}
    items = [*scan(stack.rows), *(item["row"] for item in scan(stack.entries) if "row" in item)]
    for item in items:
        key = item["key"]
        blob = base64.b64decode(key) if isinstance(key, str) else key.value
        # ministack's blob begins with the id of its key.
        counts.setdefault(blob[:36].decode(), 0)
        counts[blob[:36].decode()] += 1
    return counts


def scan(table):
    items, more = [], {}
    while True:
        page = table.scan(ConsistentRead=True, **more)
        items += page["Items"]
        if "LastEvaluatedKey" not in page:
            return items
        more = {"ExclusiveStartKey": page["LastEvaluatedKey"]}


def id_of(key):
    return key.split("/")[-1]


def interrupt(stack, execution, how):
    """Ends what is running, in the middle of something."""
    if how == "stopped":
        client("stepfunctions").stop_execution(executionArn=execution)
    else:
        # The processes of the function are killed, busy or not.
        function = stack.functions["rewrap"]
        functions = client("lambda")
        config = functions.get_function_configuration(FunctionName=function)
        variables = {**config["Environment"]["Variables"], "KILLED": str(time.time())}
        functions.update_function_configuration(
            FunctionName=function, Environment={"Variables": variables}
        )


def test_everything_moves_to_a_new_key_through_interruptions_while_others_write(
    kms, rows, old_key, new_key, nodecredstash_at, show
):
    before = rotation.writes(rows.stack.table)
    stack = rows.stack = rows.rotating.deploy(new_key, RetiredKeyArns=old_key)
    # Both keys open, until the old one is not needed any more.
    assert stack.get(rows.deleted and sorted(set(rows.values) - set(rows.deleted))[0])["secret"]
    assert wrapped_by(kms, stack) == {id_of(old_key): SEALED + LEGACY}
    moving = [name for name in rows.values if name.startswith("sealed/")][:6]
    moving = [name for name in moving if name not in rows.deleted]
    points = []
    seed = random.randrange(2**32)
    chance = random.Random(seed)
    with Writers(stack, moving) as writers:
        execution = rotation.start(stack, "rewrap", **HINTS)
        for how in ("stopped", "killed", "stopped"):
            target = chance.randint(150, 500) * (len(points) + 1)
            while True:
                seen = rotation.report(stack, "rewrap")["seen"] if points or started(stack) else 0
                if seen >= target:
                    break
                assert not over(execution), "it was over before it could be interrupted"
                time.sleep(0.05)
            interrupt(stack, execution, how)
            points.append((how, seen))
            if how == "stopped":
                execution = rotation.start(stack, "rewrap", **HINTS)
        told = rotation.ended(execution)
    assert told["status"] == "SUCCEEDED", told
    report = json.loads(told["output"])
    show(
        f"seed {seed}: interrupted at {points}, "
        f"{len(writers.put)} puts meanwhile, {writers.unanswered} tried again: {report}"
    )

    assert report["failed"] == 0 and report["state"] == "done"
    # Every row that there was before, and it is counted once, whatever was interrupted.
    assert report["changed"] == SEALED + LEGACY
    assert report["seen"] == report["changed"] + report["skipped"]
    # Nobody was refused, and all that was put is there.
    assert writers.refused == [] and len(writers.put) > 20
    for (name, version), secret in writers.put.items():
        assert stack.get(name, version=version)["secret"] == secret
    assert set(wrapped_by(kms, stack)) == {id_of(new_key)}
    # No row was written twice, but by those who moved it there and back.
    after = rotation.writes(rows.stack.table)
    modified = {
        key: count - before.get((key, kind), 0)
        for (key, kind), count in after.items()
        if kind == "MODIFY"
    }
    assert all(count == 1 for key, count in modified.items() if key[1] not in moving)
    assert len(modified) >= SEALED + LEGACY - DELETED - len(moving)

    kms.disable_key(KeyId=old_key)
    everything_opens(rows, nodecredstash_at)
    # And it need not be known any more.
    stack = rows.stack = rows.rotating.deploy(new_key)
    rows.key = new_key
    # Half of what was deleted comes back; the rest is there for what follows.
    for name in rows.deleted[: DELETED // 2]:
        stack.done("restore", name=name)
    rows.deleted, rows.moved_at = rows.deleted[DELETED // 2 :], time.time()
    everything_opens(rows, nodecredstash_at)
    assert stack.verify("sealed/0000") == {}


def started(stack):
    return stack.invoke("list", {"list": "report", "action": "rewrap"}).code == "OK"


def over(execution):
    return client("stepfunctions").describe_execution(executionArn=execution)["status"] != "RUNNING"


@pytest.fixture
def nodecredstash_at(nodecredstash_as_root):
    return lambda rows, name: nodecredstash_as_root(
        "getSecret", tableName=rows.stack.table, name=name, context=rows.values[name][1]
    )


def everything_opens(rows, nodecredstash_at):
    live = sorted(set(rows.values) - set(rows.deleted))

    def opens(name):
        secret, context = rows.values[name]
        assert rows.stack.get(name, context=context)["secret"] == secret, name

    with ThreadPoolExecutor(8) as pool:
        list(pool.map(opens, live))
    for name in live:
        secret, context = rows.values[name]
        if rows.readers.get(name) in ("nodecredstash", "both"):
            assert nodecredstash_at(rows, name) == {"ok": secret}, name
    # In this process: it takes most of a second to start.
    for name in live[::4]:
        secret, context = rows.values[name]
        if rows.readers.get(name):
            got = credstash.getSecret(name, table=rows.stack.table, context=context, region=REGION)
            assert got == secret, name


REGION = os.environ["AWS_REGION"]


def test_what_has_the_newest_wrapping_is_skipped_and_not_written(rows, faults):
    before = rotation.writes(rows.stack.table)
    faults.calls()
    report = rotation.run(rows.stack, "rewrap", **HINTS)
    calls = faults.calls()
    assert report["changed"] == report["failed"] == 0
    assert report["skipped"] == report["seen"] >= SEALED + LEGACY
    assert "dynamodb:UpdateItem" not in calls
    assert rotation.writes(rows.stack.table) == before


def test_a_new_key_material_is_another_wrapping(kms, rows, new_key, faults, show):
    """KMS's own rotation. And what a run costs, by the calls that are counted."""
    # What was moved within the minute before a run is looked at twice.
    while time.time() < rows.moved_at + 62:
        time.sleep(0.5)
    kms.rotate_key_on_demand(KeyId=new_key)
    dry = rotation.run(rows.stack, "rewrap", dry_run=True, **HINTS)
    assert dry["changed"] == dry["seen"] and dry["dry_run"]
    faults.calls()
    report = rotation.run(rows.stack, "rewrap", **HINTS)
    rates, calls = faults.rates(), faults.calls()
    assert (report["changed"], report["seen"]) == (dry["changed"], dry["seen"])
    costs_what_is_stated("rewrap", calls, report["seen"], show)
    # One call of KMS and one write for each row; those that had no answer are made again. The
    # rest is for pages.
    for call in ("kms:ReEncrypt", "dynamodb:UpdateItem"):
        assert report["seen"] <= calls[call] <= report["seen"] * 1.05
    assert 0 < rates["kms:ReEncrypt"] <= RATE


def costs_what_is_stated(action, calls, count, show):
    """The calls for each 1,000 versions, against the table of docs/operations.md."""
    lines = (ROOT / "docs/operations.md").read_text().splitlines()
    cells = next(line for line in lines if line.startswith(f"| {action}, ")).split("|")[2:-1]
    stated = dict(zip(COLUMNS, (float(cell.replace(",", "")) for cell in cells)))
    counted = {name: 1000 * calls.get(name, 0) / count for name in COLUMNS}
    shown = {name: round(number) for name, number in counted.items()}
    show(f"{action}, for each 1,000 of {count}: {shown}")
    for name, number in stated.items():
        # How many pages there are depends on how the names fall into the parts.
        assert counted[name] == pytest.approx(number, rel=0.25, abs=2), name


COLUMNS = [
    *("kms:ReEncrypt", "kms:Decrypt", "kms:GenerateDataKey", "dynamodb:UpdateItem"),
    *("dynamodb:Scan", "dynamodb:Query", "dynamodb:TransactWriteItems"),
]


def test_a_busy_kms_slows_a_run_which_ends_all_the_same(kms, rows, new_key, faults):
    kms.rotate_key_on_demand(KeyId=new_key)
    faults.calls()
    faults.set({"service": "kms", "operation": "ReEncrypt", "kind": "throttle", "every": 7})
    execution = rotation.start(rows.stack, "rewrap", **HINTS)
    told = rotation.ended(execution, 600)
    assert told["status"] == "SUCCEEDED", told
    report = json.loads(told["output"])
    assert report["changed"] == report["seen"] >= SEALED + LEGACY
    # The throttled ones were made again, and all of it was slower than it is without them.
    rates, calls = faults.rates(), faults.calls()
    assert calls["kms:ReEncrypt"] > report["seen"]
    assert 0 < rates["kms:ReEncrypt"] <= RATE / 2


@pytest.mark.parametrize("rate", [40, 200])
def test_no_second_has_more_calls_than_the_parameter(kms, rows, new_key, faults, rate):
    kms.rotate_key_on_demand(KeyId=new_key)
    functions, function = client("lambda"), rows.stack.functions["rewrap"]
    config = functions.get_function_configuration(FunctionName=function)
    before = config["Environment"]["Variables"]
    variables = {**before, "COFFER_ROTATION_KMS_REQUESTS_PER_SECOND": str(rate)}
    functions.update_function_configuration(
        FunctionName=function, Environment={"Variables": variables}
    )
    faults.calls()
    try:
        # So long that there are many seconds, a dry run lets the next one find the same.
        execution = rotation.start(rows.stack, "rewrap", dry_run=True, **HINTS)
        deadline = time.monotonic() + 120
        while faults.rates().get("kms:ReEncrypt", 0) == 0 or not_enough(rows.stack, rate):
            assert time.monotonic() < deadline
            time.sleep(0.2)
        assert 0 < faults.rates()["kms:ReEncrypt"] <= rate
        client("stepfunctions").stop_execution(executionArn=execution)
    finally:
        functions.update_function_configuration(
            FunctionName=function, Environment={"Variables": before}
        )


def not_enough(stack, rate):
    """Whether a run has not yet gone on for some seconds."""
    report = rotation.report(stack, "rewrap")
    return report["state"] == "running" and report["seen"] < 8 * rate


def test_a_legacy_row_whose_context_is_not_known_is_reported_and_left(kms, rows, new_key):
    kms.rotate_key_on_demand(KeyId=new_key)
    stack = rows.stack
    secret = {name for name in rows.values if name.startswith("legacy/with a context")}
    before = {row["name"]: row for row in scan(stack.rows) if row["name"] in secret}
    report = rotation.run(stack, "rewrap")
    assert report["reasons"] == {"context": len(secret)} and report["failed"] == len(secret)
    told = rotation.failures(stack, "rewrap")
    assert {name for name, _ in told} == secret and set(told.values()) == {"context"}
    deleted = [each for each in report["failures"] if each.get("deleted")]
    assert all(each["name"] in rows.deleted for each in deleted)
    assert {row["name"]: row for row in scan(stack.rows) if row["name"] in secret} == before
    # With its context it is one like the others; by name, too.
    name = sorted(secret - set(rows.deleted))[0]
    answer = stack.invoke("rotate", {"action": "rewrap", "name": name})
    assert answer.body["reasons"] == {"context": 1}
    hint = [{"name": name, "context": CONTEXT}]
    for _, answer in stack.both("rotate", {"action": "rewrap", "name": name, "contexts": hint}):
        assert answer.body["failed"] == 0
    assert rotation.run(stack, "rewrap", **HINTS)["changed"] == len(secret) - 1


def test_what_another_key_wrapped_is_reported(kms, rows):
    stack, foreign = rows.stack, kms.create_key()["KeyMetadata"]["Arn"]
    name = "foreign/one"
    stack.rows.put_item(Item=Writer(kms, foreign).row(name, "s"))
    stack.rows.put_item(Item={"name": "foreign/two", "version": "x", "lock": "not a secret"})
    report = rotation.run(stack, "rewrap", **HINTS)
    assert rotation.failures(stack, "rewrap") == {(name, 1): "foreign", ("foreign/two", "x"): "malformed"}
    assert report["failed"] == 2
    assert stack.invoke("get", {"name": name}).code == "Integrity"
    for name, version in (("foreign/one", f"{1:019}"), ("foreign/two", "x")):
        stack.rows.delete_item(Key={"name": name, "version": version})


def utc(moment):
    return datetime.fromtimestamp(moment, timezone.utc).isoformat()


def step(stack, execution, word, **more):
    """A step of a run, as the state machine asks for it."""
    execution = f"{execution}-{os.getpid()}"
    return stack.patiently("rewrap", action="rewrap", step=word, execution=execution, **more)


def test_an_older_start_that_comes_late_takes_nothing_over(rows):
    """A stopped execution's first step may be under way when the next one begins."""
    stack, now = rows.stack, time.time()

    def begin(execution, started_at, **more):
        asked = {"action": "rewrap", "dry_run": True, **more}
        return step(stack, execution, "begin", input=asked, started_at=utc(started_at))

    def part(execution):
        return step(stack, execution, "part", stage="all", number=0, seconds=0)["done"]

    newer = begin("newer", now)
    for more in ({}, {"token": "of a schedule"}, HINTS):
        older = begin("older", now - 0.001, **more)
        assert older["run"] == newer["run"] and older["all"] == older["moved"] == []
        assert part("older") and step(stack, "older", "end")["state"] == "replaced"
    assert newer["all"] and not part("newer")
    # A later one does, and then this one is the older.
    assert begin("newest", now + 0.001)["resumed"] and not part("newest")
    assert part("newer") and begin("newer", now)["all"] == []
    assert step(stack, "newest", "end")["state"] == "done"
    # Nor when that is over, or its report would be lost.
    assert begin("older", now - 1)["all"] == []
    assert rotation.report(stack, "rewrap")["state"] == "done"
    # One that lies ahead is refused: no other could be begun until then.
    asked = {"action": "rewrap", "input": {"action": "rewrap"}, "step": "begin", "execution": "x"}
    ahead = stack.invoke("rewrap", {**asked, "started_at": utc(now + 3600)})
    assert ahead.code == "Invalid" and stack.invoke("rewrap", asked).code == "Invalid"


def test_what_was_moved_past_a_run_and_stays_as_it_is_counts_as_failed(kms, rows):
    """Or somebody would believe that nothing needs the old key any more. Step by step, as the
    state machine asks."""
    stack = rows.stack
    foreign = Writer(kms, kms.create_key()["KeyMetadata"]["Arn"])
    seen, unseen = "foreign/seen", "foreign/unseen"

    def part(stage, number):
        while not step(stack, "steps", "part", stage=stage, number=number, seconds=40)["done"]:
            pass

    stack.rows.put_item(Item=foreign.row(seen, "s"))
    asked = {"action": "rewrap", **HINTS}
    begun = step(stack, "steps", "begin", input=asked, started_at=utc(time.time()))
    with ThreadPoolExecutor(8) as pool:
        list(pool.map(lambda number: part("all", number), begun["all"]))
        before = rotation.report(stack, "rewrap")
        assert before["started_at"] <= before["progressed_at"] and "ended_at" not in before
        # One that no part of the first stage has seen, and one that was told of already.
        stack.rows.put_item(Item=foreign.row(unseen, "s"))
        for name in (seen, unseen):
            stack.done("delete", name=name)
        list(pool.map(lambda number: part("moved", number), begun["moved"]))
    report = step(stack, "steps", "end")
    assert before["reasons"] == {"foreign": 1} and report["reasons"] == {"foreign": 2}
    assert report["seen"] == before["seen"] + 1 == report["skipped"] + report["changed"] + 2
    told = {(each["name"], each["version"], each.get("deleted")) for each in report["failures"]}
    assert told == {(seen, 1, None), (unseen, 1, True)}
    for name in (seen, unseen):
        stack.done("restore", name=name)
        stack.rows.delete_item(Key={"name": name, "version": f"{1:019}"})


def test_a_name_that_others_keep_moving_is_told_and_the_run_goes_on(rows, faults):
    """Or it would never end. Step by step, as the state machine asks."""
    stack, name = rows.stack, "moving/for ever"
    stack.put(name, "s")
    asked = {"action": "rewrap"}
    begun = step(stack, "mover", "begin", input=asked, started_at=utc(time.time()))
    # Each look at it takes longer than to move it there and back.
    faults.set({"service": "kms", "operation": "ReEncrypt", "kind": "delay", "seconds": 1.5})

    def part(number):
        while not step(stack, "mover", "part", stage="moved", number=number, seconds=40)["done"]:
            pass

    with Writers(stack, [name]) as writers, ThreadPoolExecutor(8) as pool:
        deadline = time.monotonic() + 30
        while len(stack.history(name)) < 5:
            assert time.monotonic() < deadline
        list(pool.map(part, begun["moved"]))
    faults.set()
    assert writers.refused == []
    assert rotation.failures(stack, "rewrap").get((name, None)) == "moving"
    report = step(stack, "mover", "end")
    assert report["state"] == "done" and report["reasons"]["moving"] >= 1
    if not stack.versions_of(name):
        stack.patiently("restore", name=name)
    assert stack.get(name)["secret"] == "s"


def test_then_all_legacy_rows_are_given_a_seal(rows, faults, nodecredstash_at, show):
    """The same rows, at the same scale; and afterwards none without a seal is opened."""
    legacy = [name for name in rows.values if name.startswith("legacy/")]
    faults.calls()
    report = rotation.run(rows.stack, "reseal", **HINTS)
    calls = faults.calls()
    assert (report["changed"], report["failed"]) == (len(legacy), 0)
    costs_what_is_stated("reseal", calls, len(legacy), show)
    rows.stack = rows.rotating.deploy(rows.key, LegacyItems="refuse")
    everything_opens(rows, nodecredstash_at)
    assert all("seal" in row for row in scan(rows.stack.rows))
