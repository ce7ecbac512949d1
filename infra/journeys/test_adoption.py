"""A stack on a table and a key that were there before it. Both deploys are real ones."""

import csv
import io
import json
import re
import subprocess

import pytest
import yaml
from adoption import ALIAS, TABLE, add_names_index, adopt, as_root
from conftest import ROOT, Stack, client
from test_bundles import ODD

OLD = "written/by/credstash"


@pytest.fixture
def adopted():
    """Deploys a second stack on a table and a key that credstash made: `adopted("read")`."""
    return lambda legacy, **more: Stack(adopt(legacy, **more))


def test_an_old_table_is_read_written_and_listed(adopted, name):
    stack = adopted("read")
    assert stack.table == TABLE
    for _, got in stack.both("get", {"name": OLD}):
        assert (got.body["secret"], got.body["dialect"]) == ("ten years ago", "credstash")
    stack.put(name, "by coffer")
    assert as_root("get", "-n", name)[1] == "by coffer"
    assert as_root("put", "-a", "-k", ALIAS, name, "by credstash")[0] == 0
    assert stack.get(name)["secret"] == "by credstash"

    # A credstash table has no index of revisions, and none can be added.
    revision = stack.get(name, version=1)["revision"]
    answer = stack.invoke("get", {"name": name, "revision": revision})
    assert answer.code == "Unavailable"
    assert f"table/{TABLE}/index/revision" in answer.log

    # Nor one of names, until it is added as the README says.
    listed = stack.invoke("list", {})
    if listed.code != "OK":
        assert listed.code == "Unavailable"
        assert f"table/{TABLE}/index/names" in listed.log
        assert "the table's indexes" in listed.log
        add_names_index()
        listed = stack.invoke("list", {"limit": 1000})
    assert {OLD, name} <= {entry["name"] for entry in listed.body["secrets"]}

    # Names that Coffer would not put, but that are there.
    for odd in ("a//b", "tab\there", "x" * 600):
        assert as_root("put", "-k", ALIAS, odd, f"value of {odd}")[0] == 0
        assert stack.get(odd)["secret"] == f"value of {odd}"
        assert stack.invoke("list", {"name": odd}).body["versions"][0]["name"] == odd
        assert stack.invoke("put", {"name": odd, "secret": "s"}).code == "Invalid"
        assert stack.invoke("get", {"name": f"{odd}//"}).code == "Invalid"
    # And names of Parameter Store's form, which it puts, too.
    assert as_root("put", "-k", ALIAS, "/prod/db", "by credstash")[0] == 0
    for _, got in stack.both("get", {"name": "/prod/db"}):
        assert got.body["secret"] == "by credstash"
    for _, listed in stack.both("list", {"prefix": "/prod"}):
        assert [entry["name"] for entry in listed.body["secrets"]] == ["/prod/db"]
    assert stack.put("/prod/db", "by coffer")["version"] == 2
    assert as_root("get", "-n", "/prod/db")[1] == "by coffer"
    more, names = {}, set()
    while True:
        page = stack.invoke("list", {"limit": 1, **more}).body
        names |= {entry["name"] for entry in page["secrets"]}
        if "next" not in page:
            break
        more = {"next": page["next"]}
    assert {OLD, name, "/prod/db", "a//b", "tab\there", "x" * 600} <= names


def test_a_data_key_that_is_kept_opens_without_kms(adopted, faults, name):
    """The second stack keeps data keys for an hour; the first asks KMS each time."""
    stack = adopted("read")
    stack.put(name, "s", context={"app": "web"})
    stack.get(name, context={"app": "web"})
    faults.calls()
    for _ in range(3):
        stack.get(name, context={"app": "web"})
    assert faults.calls().get("kms:Decrypt", 0) == 0
    assert stack.invoke("get", {"name": name}).code == "Forbidden"
    assert stack.invoke("get", {"name": name, "context": {"app": "w"}}).code == "Forbidden"
    # What is kept is verified all the same.
    row = stack.row(name)
    stack.rows.put_item(Item={**row, "comment": "edited"})
    assert stack.invoke("get", {"name": name, "context": {"app": "web"}}).code == "Integrity"


def test_a_stack_that_refuses_legacy_rows_refuses_them_all(adopted, name):
    stack = adopted("refuse")
    stack.put(name, "s")
    assert stack.get(name)["secret"] == "s"
    row = stack.row(name)
    del row["seal"]
    stack.rows.put_item(Item=row)
    for refused in (name, OLD):
        for origin, answer in stack.both("get", {"name": refused}):
            assert answer.code == "Integrity"
            assert answer.status == (500 if origin == "http" else None)
            assert "legacy" in answer.message


def test_a_table_is_not_adopted_without_its_key():
    deploy = ROOT / "infra/local/deploy"
    parameters = f"Architecture=x86_64 ExistingTableName={TABLE}"
    done = subprocess.run(
        [deploy, "--stack-name", "keyless", "--parameter-overrides", parameters],
        capture_output=True,
        text=True,
    )
    assert done.returncode != 0
    assert "ExistingKeyArn" in done.stdout + done.stderr


def variable(line):
    """A line of a dotenv file, with its name as one that can be set."""
    name, value = line.split("=", 1)
    return re.sub(r"\W", "_", name.removeprefix("GETALL."), flags=re.ASCII), value


def test_the_documents_of_a_bundle_are_credstashs_getall(adopted):
    stack = adopted("read")
    for key, value in ODD.items():
        if "'" not in value and "\n" not in value and " " not in key:
            stack.put(f"getall.{key}", value)
    for format_, read in (
        ("json", json.loads),
        ("yaml", yaml.safe_load),
        ("csv", lambda text: {row[0]: row[1] for row in csv.reader(io.StringIO(text)) if row}),
        ("dotenv", lambda text: dict(variable(line) for line in text.splitlines() if line)),
    ):
        # What getall does, of a part of the table: it hangs on what it cannot open.
        code, theirs, error = as_root("get", "getall.*", "-f", format_)
        assert code == 0, error
        ours = stack.done("get", prefix="getall", format=format_)
        ours = read(ours if isinstance(ours, str) else json.dumps(ours))
        assert ours == read(theirs) and len(ours) > 10, format_


def test_a_ledger_is_adopted_with_what_awaits_recovery(adopted, name):
    """As after the stack was deleted and deployed anew, or the ledger restored from a backup."""
    stack = adopted("read")
    stack.put(name, "s")
    stack.done("delete", name=name)
    ledger = client("dynamodb").describe_table(TableName=stack.ledger)["Table"]
    anew = adopted(
        "read",
        ExistingLedgerName=stack.ledger,
        ExistingLedgerStreamLabel=ledger["LatestStreamLabel"],
    )
    assert anew.ledger == stack.ledger
    assert anew.done("restore", name=name)["versions"] == [1]
    assert anew.get(name)["secret"] == "s"
    assert [event["operation"] for event in anew.history(name)] == ["restore", "delete", "put"]
    assert anew.verify(name) == {}
