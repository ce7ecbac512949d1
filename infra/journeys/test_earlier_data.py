"""What a stack of 2026-11-25 had written: everything still opens, lists, restores and verifies."""

import json
import time
from typing import Any

import pytest

import rotation
from conftest import ROOT, Stack
from stored_items import item_of, wrapped

EARLIER = json.loads((ROOT / "infra/journeys/data/2026-11-25.json").read_text())
MONTH = 30 * 24 * 3600


def row_of(kms: Any, key: str, stored: dict[str, Any]) -> dict[str, Any]:
    """Returns a row with its data key wrapped by `key`."""
    data_key, context, binary = stored["data_key"], stored["context"], stored["raw"]
    wrapped_key = wrapped(kms, key, data_key, context, binary=binary)
    return {**item_of(stored["item"]), "key": wrapped_key}


@pytest.fixture(scope="module")
def stack(kms: Any) -> Stack:
    """Deploys a stack, and writes the items of the earlier one to its tables."""
    rotating = rotation.Rotating("earlier")
    key = kms.create_key()["KeyMetadata"]["Arn"]
    stack = rotating.deploy(key)
    for stored in EARLIER["rows"]:
        stack.rows.put_item(Item=row_of(kms, key, stored))
    for stored in EARLIER["entries"]:
        entry = item_of(stored["item"])
        if "row" in stored:
            entry["row"] = row_of(kms, key, stored["row"])
        # Recovery windows and tokens have not ended yet.
        if "ttl" in entry and not entry["entry"].startswith("event#"):
            entry["ttl"] = int(time.time()) + MONTH
        stack.entries.put_item(Item=entry)
    return stack


def check_values(stack: Stack) -> None:
    for expected in EARLIER["values"]:
        request = {
            field: expected[field] for field in ("name", "version", "context") if field in expected
        }
        response = stack.get(**request)
        for field in ("secret", "secret_base64"):
            assert response.get(field) == expected.get(field), expected


def test_every_value_opens_by_both_ways_of_calling(stack: Stack) -> None:
    check_values(stack)
    for request in ({"name": "plain"}, {"name": "/leading/slash"}):
        for _, response in stack.both("get", request):
            assert response.code == "OK", response


def test_names_versions_and_bundles_are_complete(stack: Stack) -> None:
    names = [secret["name"] for secret in stack.pages("list", "secrets")]
    assert sorted(set(names)) == sorted({stored["item"]["name"]["S"] for stored in EARLIER["rows"]})
    versions = stack.pages("list", "versions", name="versions")
    assert sorted(each["version"] for each in versions) == [1, 2, 3, 4, 5]
    bundle = stack.pages("get", "secrets", prefix="bundle")
    assert len(bundle) == 35


def test_every_history_is_whole(stack: Stack) -> None:
    for name in EARLIER["verify"]:
        assert stack.verify(name) == {}, name


def test_a_token_returns_what_it_returned(stack: Stack) -> None:
    assert stack.done("put", **EARLIER["token"]["request"]) == EARLIER["token"]["response"]


def test_policies_keep_their_state(stack: Stack) -> None:
    def policy(name: str) -> Any:
        return stack.done("policy", policy="get", name=f"policy/{name}")

    assert policy("suspended")["suspended"] is True
    for name, version in (("renewed", 3), ("restored", 2)):
        assert "suspended" not in policy(name)
        renewed = stack.done("rotate", action="renew", name=f"policy/{name}")
        assert renewed["version"] == version
        assert len(stack.get(f"policy/{name}")["secret"]) == 40


def test_deleted_versions_are_restored(stack: Stack) -> None:
    assert stack.done("restore", name="deleted/all")["versions"] == [1, 2, 3]
    for version in (1, 2, 3):
        response = stack.get("deleted/all", version=version, context={"k": "v"})
        assert response["secret"] == f"value {version}"
    assert stack.done("restore", name="deleted/one")["versions"] == [2]
    assert stack.get("deleted/one", version=2)["secret"] == "value 2"
    assert stack.invoke("restore", {"name": "deleted/forced"}).code == "NotFound"


def test_the_report_of_the_earlier_run_is_returned(stack: Stack) -> None:
    report = rotation.report(stack, "rewrap")
    assert (report["state"], report["failed"]) == ("done", 0)


def test_runs_and_puts_continue_from_there(stack: Stack) -> None:
    contexts = [{"name": "legacy/context", "context": {"a": "b"}}]
    assert rotation.run(stack, "reseal", contexts=contexts)["failed"] == 0
    assert rotation.run(stack, "rewrap")["failed"] == 0
    check_values(stack)
    assert stack.put("versions", "value 6")["version"] == 6
    assert stack.put("deleted/forced", "again")["version"] == 2
    for name in EARLIER["verify"]:
        assert stack.verify(name) == {}, name
