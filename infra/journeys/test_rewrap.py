"""Rewrap: data keys are encrypted again by the newest key, in a run or by name.

Others write during the run, and it is interrupted and throttled. Then the old key is disabled, and
everything still opens.
"""

import json
import os
import random
import time
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime
from typing import Any

import pytest

import rotation
from conftest import ROOT, Faults, NodeClient, Show, Stack, client
from legacy import Writer
from rewrap_rows import (
    CONTEXT,
    DELETED,
    HINTS,
    LEGACY,
    SEALED,
    Rows,
    Writers,
    everything_opens,
    populate,
    rewrap_with_interruptions,
    wrapped_by,
)
from tables import scan

# The KMS requests per second with which `rotation` deploys its stacks.
RATE = 400
COLUMNS = [
    *("kms:ReEncrypt", "kms:Decrypt", "kms:GenerateDataKey", "dynamodb:UpdateItem"),
    *("dynamodb:Scan", "dynamodb:Query", "dynamodb:TransactWriteItems"),
]


@pytest.fixture(scope="module")
def old_key(kms: Any) -> str:
    return kms.create_key()["KeyMetadata"]["Arn"]


@pytest.fixture(scope="module")
def new_key(kms: Any) -> str:
    return kms.create_key()["KeyMetadata"]["Arn"]


@pytest.fixture(scope="module")
def rows(kms: Any, old_key: str) -> Rows:
    rotating = rotation.Rotating("rewrap")
    return populate(rotating, rotating.deploy(old_key), kms, old_key)


def id_of(key: str) -> str:
    return key.split("/")[-1]


def test_every_row_is_rewrapped_despite_interruptions_and_concurrent_writes(
    kms: Any, rows: Rows, old_key: str, new_key: str, nodecredstash_as_root: NodeClient, show: Show
) -> None:
    before = rotation.writes(rows.stack.table)
    stack = rows.stack = rows.rotating.deploy(new_key, RetiredKeyArns=old_key)
    # The stack uses both keys while the old one is still needed.
    live = sorted(set(rows.values) - set(rows.deleted))
    assert stack.get(live[0])["secret"]
    assert wrapped_by(kms, stack) == {id_of(old_key): SEALED + LEGACY}
    moving = [name for name in rows.values if name.startswith("sealed/")][:6]
    moving = [name for name in moving if name not in rows.deleted]
    seed = random.randrange(2**32)
    with Writers(stack, moving) as writers:
        result, points = rewrap_with_interruptions(stack, random.Random(seed))
    assert result["status"] == "SUCCEEDED", result
    report = json.loads(result["output"])
    show(
        f"seed {seed}: interrupted at {points}, "
        f"{len(writers.put)} puts meanwhile, {writers.retries} retries: {report}"
    )

    assert report["failed"] == 0 and report["state"] == "done"
    # Every row from before the run is counted once, despite the interruptions.
    assert report["changed"] == SEALED + LEGACY
    assert report["seen"] == report["changed"] + report["skipped"]
    # No write was refused, and every version that was put exists.
    assert writers.refused == [] and len(writers.put) > 20
    for (name, version), secret in writers.put.items():
        assert stack.get(name, version=version)["secret"] == secret
    assert set(wrapped_by(kms, stack)) == {id_of(new_key)}
    # No row was written twice, except the ones that were deleted and restored.
    after = rotation.writes(rows.stack.table)
    modified = {
        key: count - before.get((key, kind), 0)
        for (key, kind), count in after.items()
        if kind == "MODIFY"
    }
    assert all(count == 1 for key, count in modified.items() if key[1] not in moving)
    assert len(modified) >= SEALED + LEGACY - DELETED - len(moving)

    kms.disable_key(KeyId=old_key)
    everything_opens(rows, nodecredstash_as_root)
    # The stack no longer needs the old key.
    stack = rows.stack = rows.rotating.deploy(new_key)
    rows.key = new_key
    # Half of the deleted names are restored. The following tests need the rest.
    for name in rows.deleted[: DELETED // 2]:
        stack.done("restore", name=name)
    rows.deleted, rows.moved_at = rows.deleted[DELETED // 2 :], time.time()
    everything_opens(rows, nodecredstash_as_root)
    assert stack.verify("sealed/0000") == {}


def test_rows_with_the_newest_wrapping_are_skipped_and_not_written(
    rows: Rows, faults: Faults
) -> None:
    before = rotation.writes(rows.stack.table)
    faults.calls()
    report = rotation.run(rows.stack, "rewrap", **HINTS)
    calls = faults.calls()
    assert report["changed"] == report["failed"] == 0
    assert report["skipped"] == report["seen"] >= SEALED + LEGACY
    assert "dynamodb:UpdateItem" not in calls
    assert rotation.writes(rows.stack.table) == before


def test_a_rotation_of_the_kms_key_makes_every_row_due_for_a_rewrap(
    kms: Any, rows: Rows, new_key: str, faults: Faults, show: Show
) -> None:
    """Also compares the calls of the run with the documented numbers."""
    # A run processes names twice that were moved within the minute before it.
    while time.time() < rows.moved_at + 62:
        time.sleep(0.5)
    kms.rotate_key_on_demand(KeyId=new_key)
    dry = rotation.run(rows.stack, "rewrap", dry_run=True, **HINTS)
    assert dry["changed"] == dry["seen"] and dry["dry_run"]
    faults.calls()
    report = rotation.run(rows.stack, "rewrap", **HINTS)
    rates, calls = faults.rates(), faults.calls()
    assert (report["changed"], report["seen"]) == (dry["changed"], dry["seen"])
    check_documented_calls("rewrap", calls, report["seen"], show)
    # One KMS call and one write for each row, plus retries of calls without a response. The other
    # calls read pages.
    for call in ("kms:ReEncrypt", "dynamodb:UpdateItem"):
        assert report["seen"] <= calls[call] <= report["seen"] * 1.05
    assert 0 < rates["kms:ReEncrypt"] <= RATE


def check_documented_calls(action: str, calls: dict[str, int], count: int, show: Show) -> None:
    """Compares the calls for 1,000 versions with the table in docs/operations.md."""
    lines = (ROOT / "docs/operations.md").read_text().splitlines()
    cells = next(line for line in lines if line.startswith(f"| {action}, ")).split("|")[2:-1]
    documented = dict(zip(COLUMNS, (float(cell.replace(",", "")) for cell in cells), strict=False))
    counted = {name: 1000 * calls.get(name, 0) / count for name in COLUMNS}
    rounded = {name: round(number) for name, number in counted.items()}
    show(f"{action}, per 1,000 of {count}: {rounded}")
    for name, number in documented.items():
        # The number of pages depends on how the names are distributed over the parts.
        assert counted[name] == pytest.approx(number, rel=0.25, abs=2), name


def test_a_run_slows_down_but_completes_when_kms_throttles(
    kms: Any, rows: Rows, new_key: str, faults: Faults
) -> None:
    kms.rotate_key_on_demand(KeyId=new_key)
    faults.calls()
    faults.set({"service": "kms", "operation": "ReEncrypt", "kind": "throttle", "every": 7})
    execution = rotation.start(rows.stack, "rewrap", **HINTS)
    result = rotation.ended(execution, 600)
    assert result["status"] == "SUCCEEDED", result
    report = json.loads(result["output"])
    assert report["changed"] == report["seen"] >= SEALED + LEGACY
    # Throttled calls were repeated, and the rate was lower than without throttling.
    rates, calls = faults.rates(), faults.calls()
    assert calls["kms:ReEncrypt"] > report["seen"]
    assert 0 < rates["kms:ReEncrypt"] <= RATE / 2


@pytest.mark.parametrize("rate", [40, 200])
def test_kms_requests_per_second_stay_within_the_parameter(
    kms: Any, rows: Rows, new_key: str, faults: Faults, rate: int
) -> None:
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
        # A dry run changes nothing, so the next parameter finds the same rows.
        execution = rotation.start(rows.stack, "rewrap", dry_run=True, **HINTS)
        deadline = time.monotonic() + 120
        while faults.rates().get("kms:ReEncrypt", 0) == 0 or needs_more_time(rows.stack, rate):
            assert time.monotonic() < deadline
            time.sleep(0.2)
        assert 0 < faults.rates()["kms:ReEncrypt"] <= rate
        client("stepfunctions").stop_execution(executionArn=execution)
    finally:
        functions.update_function_configuration(
            FunctionName=function, Environment={"Variables": before}
        )


def needs_more_time(stack: Stack, rate: int) -> bool:
    """Returns whether a run has not yet lasted long enough to measure its rate."""
    report = rotation.report(stack, "rewrap")
    return report["state"] == "running" and report["seen"] < 8 * rate


def test_a_legacy_row_with_an_unknown_context_is_reported_and_left_unchanged(
    kms: Any, rows: Rows, new_key: str
) -> None:
    kms.rotate_key_on_demand(KeyId=new_key)
    stack = rows.stack
    names = {name for name in rows.values if name.startswith("legacy/with a context")}
    before = {row["name"]: row for row in scan(stack.rows) if row["name"] in names}
    report = rotation.run(stack, "rewrap")
    assert report["reasons"] == {"context": len(names)} and report["failed"] == len(names)
    failures = rotation.failures(stack, "rewrap")
    assert {name for name, _ in failures} == names and set(failures.values()) == {"context"}
    deleted = [failure for failure in report["failures"] if failure.get("deleted")]
    assert all(failure["name"] in rows.deleted for failure in deleted)
    assert {row["name"]: row for row in scan(stack.rows) if row["name"] in names} == before
    # With its context, the row is rewrapped, also by a request for its name.
    name = sorted(names - set(rows.deleted))[0]
    response = stack.invoke("rotate", {"action": "rewrap", "name": name})
    assert response.body["reasons"] == {"context": 1}
    hint = [{"name": name, "context": CONTEXT}]
    for _, response in stack.both("rotate", {"action": "rewrap", "name": name, "contexts": hint}):
        assert response.body["failed"] == 0
    assert rotation.run(stack, "rewrap", **HINTS)["changed"] == len(names) - 1


def test_rows_wrapped_by_a_foreign_key_are_reported(kms: Any, rows: Rows) -> None:
    stack, foreign = rows.stack, kms.create_key()["KeyMetadata"]["Arn"]
    name = "foreign/one"
    stack.rows.put_item(Item=Writer(kms, foreign).row(name, "s"))
    stack.rows.put_item(Item={"name": "foreign/two", "version": "x", "lock": "not a secret"})
    report = rotation.run(stack, "rewrap", **HINTS)
    assert rotation.failures(stack, "rewrap") == {
        (name, 1): "foreign",
        ("foreign/two", "x"): "malformed",
    }
    assert report["failed"] == 2
    assert stack.invoke("get", {"name": name}).code == "Integrity"
    for name, version in (("foreign/one", f"{1:019}"), ("foreign/two", "x")):
        stack.rows.delete_item(Key={"name": name, "version": version})


def utc(seconds: float) -> str:
    """Returns a Unix time as an RFC 3339 timestamp."""
    return datetime.fromtimestamp(seconds, UTC).isoformat()


def step(stack: Stack, execution: str, step: str, **fields: Any) -> Any:
    """Sends the request of one step of a run, as the state machine does."""
    execution = f"{execution}-{os.getpid()}"
    return stack.patiently("rewrap", action="rewrap", step=step, execution=execution, **fields)


def test_an_older_execution_that_starts_late_does_not_take_over_a_run(rows: Rows) -> None:
    """The first step of a stopped execution may arrive after the next execution has begun."""
    stack, now = rows.stack, time.time()

    def begin(execution: str, started_at: float, **options: Any) -> Any:
        request = {"action": "rewrap", "dry_run": True, **options}
        return step(stack, execution, "begin", input=request, started_at=utc(started_at))

    def part(execution: str) -> bool:
        return step(stack, execution, "part", stage="all", number=0, seconds=0)["done"]

    newer = begin("newer", now)
    different: list[dict[str, Any]] = [{}, {"token": "of a schedule"}, HINTS]
    for options in different:
        older = begin("older", now - 0.001, **options)
        assert older["run"] == newer["run"] and older["all"] == older["moved"] == []
        assert part("older") and step(stack, "older", "end")["state"] == "replaced"
    assert newer["all"] and not part("newer")
    # A later execution takes over. Then `newer` is the older one.
    assert begin("newest", now + 0.001)["resumed"] and not part("newest")
    assert part("newer") and begin("newer", now)["all"] == []
    assert step(stack, "newest", "end")["state"] == "done"
    # An older one does not start a new run after the end: the report would be lost.
    assert begin("older", now - 1)["all"] == []
    assert rotation.report(stack, "rewrap")["state"] == "done"
    # A start in the future is refused: it would block every other execution until then.
    request = {"action": "rewrap", "input": {"action": "rewrap"}, "step": "begin", "execution": "x"}
    ahead = stack.invoke("rewrap", {**request, "started_at": utc(now + 3600)})
    assert ahead.code == "Invalid" and stack.invoke("rewrap", request).code == "Invalid"


def test_a_row_that_moved_past_a_run_unchanged_counts_as_failed(kms: Any, rows: Rows) -> None:
    """Otherwise, the report would say that nothing needs the old key.

    The test sends the requests of the state machine, step by step.
    """
    stack = rows.stack
    foreign = Writer(kms, kms.create_key()["KeyMetadata"]["Arn"])
    seen, unseen = "foreign/seen", "foreign/unseen"

    def part(stage: str, number: int) -> None:
        while not step(stack, "steps", "part", stage=stage, number=number, seconds=40)["done"]:
            pass

    stack.rows.put_item(Item=foreign.row(seen, "s"))
    request = {"action": "rewrap", **HINTS}
    begun = step(stack, "steps", "begin", input=request, started_at=utc(time.time()))
    with ThreadPoolExecutor(8) as pool:
        list(pool.map(lambda number: part("all", number), begun["all"]))
        before = rotation.report(stack, "rewrap")
        assert before["started_at"] <= before["progressed_at"] and "ended_at" not in before
        # The first stage has not seen one of the rows, and has reported the other.
        stack.rows.put_item(Item=foreign.row(unseen, "s"))
        for name in (seen, unseen):
            stack.done("delete", name=name)
        list(pool.map(lambda number: part("moved", number), begun["moved"]))
    report = step(stack, "steps", "end")
    assert before["reasons"] == {"foreign": 1} and report["reasons"] == {"foreign": 2}
    assert report["seen"] == before["seen"] + 1 == report["skipped"] + report["changed"] + 2
    failures = {
        (failure["name"], failure["version"], failure.get("deleted"))
        for failure in report["failures"]
    }
    assert failures == {(seen, 1, None), (unseen, 1, True)}
    for name in (seen, unseen):
        stack.done("restore", name=name)
        stack.rows.delete_item(Key={"name": name, "version": f"{1:019}"})


def test_a_name_that_keeps_moving_is_reported_and_the_run_completes(
    rows: Rows, faults: Faults
) -> None:
    """Otherwise, the run would never end.

    The test sends the requests of the state machine, step by step.
    """
    stack, name = rows.stack, "moving/for ever"
    stack.put(name, "s")
    request = {"action": "rewrap"}
    begun = step(stack, "mover", "begin", input=request, started_at=utc(time.time()))
    # Processing the name takes longer than deleting and restoring it.
    faults.set({"service": "kms", "operation": "ReEncrypt", "kind": "delay", "seconds": 1.5})

    def part(number: int) -> None:
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


def test_every_legacy_row_can_then_be_resealed(
    rows: Rows, faults: Faults, nodecredstash_as_root: NodeClient, show: Show
) -> None:
    """Uses the rows of the tests above. Afterwards, the stack refuses rows without a seal."""
    legacy = [name for name in rows.values if name.startswith("legacy/")]
    faults.calls()
    report = rotation.run(rows.stack, "reseal", **HINTS)
    calls = faults.calls()
    assert (report["changed"], report["failed"]) == (len(legacy), 0)
    check_documented_calls("reseal", calls, len(legacy), show)
    rows.stack = rows.rotating.deploy(rows.key, LegacyItems="refuse")
    everything_opens(rows, nodecredstash_as_root)
    assert all("seal" in row for row in scan(rows.stack.rows))
