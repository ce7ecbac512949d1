"""The credentials of a function's role, in other hands, allow only what the function does."""

import base64
import json
from collections.abc import Callable, Iterator
from functools import partial
from typing import Any

import boto3
import pytest
from botocore.exceptions import ClientError

from conftest import ACCOUNT, ONCE, REGION, Show, Stack, allow, client
from roles import role_table

Attempt = Callable[[], Any]
AssumeRole = Callable[[str], boto3.Session]


@pytest.fixture
def as_role(iam: Any, stack: Stack) -> Iterator[AssumeRole]:
    """Assumes the role of a function and returns a session with its credentials."""
    trusted: dict[str, Any] = {}

    def assume(verb: str) -> boto3.Session:
        role = stack.role(verb)
        trusted.setdefault(role, iam.get_role(RoleName=role)["Role"]["AssumeRolePolicyDocument"])
        trust = allow("sts:AssumeRole", None)
        del trust["Statement"][0]["Resource"]
        trust["Statement"][0]["Principal"] = {"AWS": f"arn:aws:iam::{ACCOUNT}:root"}
        iam.update_assume_role_policy(RoleName=role, PolicyDocument=json.dumps(trust))
        keys = client("sts").assume_role(
            RoleArn=f"arn:aws:iam::{ACCOUNT}:role/{role}", RoleSessionName="journey"
        )["Credentials"]
        return boto3.Session(
            keys["AccessKeyId"], keys["SecretAccessKey"], keys["SessionToken"], REGION
        )

    yield assume
    for role, trust in trusted.items():
        iam.update_assume_role_policy(RoleName=role, PolicyDocument=json.dumps(trust))


class Attempts:
    """The calls that a holder of a function's credentials could try."""

    def __init__(self, stack: Stack, session: boto3.Session, row: dict[str, Any]) -> None:
        self.stack, self.row = stack, row
        self.kms = session.client("kms", config=ONCE)
        self.dynamodb = session.client("dynamodb", config=ONCE)
        self.key = {"name": {"S": row["name"]}, "version": {"S": row["version"]}}
        self.entry = {"name": {"S": row["name"]}, "entry": {"S": "e"}}
        # Entries of the ledger that have keys of their own.
        self.special_entries = {
            "a run": {"name": {"S": "/rotation/mine"}, "entry": {"S": "part#"}},
            "a policy": {"name": {"S": "/policies"}, "entry": {"S": "mine"}},
            "a token": {"name": {"S": "/token/mine"}, "entry": {"S": "mine"}},
        }

    def all(self) -> dict[str, Attempt]:
        """Returns every attempt by its name in the table below."""
        return {
            **self.of_kms(),
            **self.writes_of_secrets(),
            **self.reads_of_secrets(),
            **self.reads_of_the_ledger(),
            **self.writes_of_the_ledger(),
            **self.transactions(),
        }

    def of_kms(self) -> dict[str, Attempt]:
        kms, key_arn = self.kms, self.stack.key_arn
        wrapped = base64.b64decode(self.row["key"])
        return {
            "wrap": lambda: kms.generate_data_key(KeyId=key_arn, NumberOfBytes=64),
            "unwrap": lambda: kms.decrypt(CiphertextBlob=wrapped, KeyId=key_arn),
            "encrypt": lambda: kms.encrypt(KeyId=key_arn, Plaintext=b"x"),
            "re-encrypt": lambda: kms.re_encrypt(CiphertextBlob=wrapped, DestinationKeyId=key_arn),
        }

    def update(self, table: str, item_key: dict[str, Any], path: str, **names: str) -> Attempt:
        """Returns an update of one attribute. `names` maps placeholders to attributes."""
        call = {"TableName": table, "Key": item_key, "UpdateExpression": f"SET {path} = :value"}
        if names:
            call["ExpressionAttributeNames"] = with_hashes(names)
        call["ExpressionAttributeValues"] = {":value": {"S": "x"}}
        return partial(self.dynamodb.update_item, **call)

    def query(self, table: str, projection: str, **names: str) -> Attempt:
        """Returns a query of these attributes. `names` maps placeholders to attributes."""
        return partial(
            self.dynamodb.query,
            TableName=table,
            **self.by_name(**names),
            ProjectionExpression=projection,
            Select="SPECIFIC_ATTRIBUTES",
        )

    def by_name(self, **names: str) -> dict[str, Any]:
        """Returns the condition of a query for the name of the row."""
        return {
            "KeyConditionExpression": "#name = :name",
            "ExpressionAttributeNames": {"#name": "name", **with_hashes(names)},
            "ExpressionAttributeValues": {":name": self.key["name"]},
        }

    def writes_of_secrets(self) -> dict[str, Attempt]:
        dynamodb, table, key = self.dynamodb, self.stack.table, self.key
        return {
            "write": lambda: dynamodb.put_item(
                TableName=table, Item={**key, "version": {"S": f"{8:019}"}}
            ),
            "touch": lambda: dynamodb.update_item(TableName=table, Key=key),
            "change a wrapped key": self.update(table, key, "#key", key="key"),
            "change a comment": self.update(table, key, "#comment", comment="comment"),
            # With these two, a row could lose its context and be wrapped under another.
            "change a seal": self.update(table, key, "seal"),
            "change a context": self.update(table, key, "#context", context="context"),
        }

    def reads_of_secrets(self) -> dict[str, Attempt]:
        dynamodb, table, key = self.dynamodb, self.stack.table, self.key
        by_name = self.by_name()
        return {
            "query a wrapped key": self.query(table, "#name, #key", key="key"),
            "delete": lambda: dynamodb.delete_item(TableName=table, Key=key),
            "read an item": lambda: dynamodb.get_item(TableName=table, Key=key),
            "query whole rows": lambda: dynamodb.query(TableName=table, **by_name),
            "query the highest version": self.query(table, "#version", version="version"),
            # These attributes show whether the ledger knows the highest version.
            "query what the highest version is": self.query(
                table, "#version, #hmac, #end", version="version", hmac="hmac", end="expires_at"
            ),
            "query a ciphertext": self.query(table, "#contents", contents="contents"),
            "query revisions": lambda: dynamodb.query(
                TableName=table, IndexName="revision", **by_name
            ),
            "query names": lambda: dynamodb.query(TableName=table, IndexName="names", **by_name),
            "scan": lambda: dynamodb.scan(TableName=table),
            "scan names": lambda: dynamodb.scan(TableName=table, IndexName="names"),
        }

    def reads_of_the_ledger(self) -> dict[str, Attempt]:
        dynamodb, ledger = self.dynamodb, self.stack.ledger
        return {
            "query events": self.query(ledger, "#name, entry, who, #hash", hash="hash"),
            "query tokens": self.query(ledger, "answer, fingerprint"),
            "query a deleted ciphertext": self.query(ledger, "#name, #row.contents", row="row"),
            "query the whole ledger": lambda: dynamodb.query(TableName=ledger, **self.by_name()),
            "read an entry": lambda: dynamodb.get_item(TableName=ledger, Key=self.entry),
            "scan the ledger": lambda: dynamodb.scan(TableName=ledger),
        }

    def writes_of_the_ledger(self) -> dict[str, Attempt]:
        dynamodb, ledger, entry = self.dynamodb, self.stack.ledger, self.entry
        special = self.special_entries.items()
        return {
            "write the ledger": lambda: dynamodb.put_item(TableName=ledger, Item=entry),
            "touch the ledger": lambda: dynamodb.update_item(TableName=ledger, Key=entry),
            "change an event": self.update(ledger, entry, "who"),
            "change a deleted version": self.update(ledger, entry, "#row", row="row"),
            **{
                f"write {what}": partial(dynamodb.put_item, TableName=ledger, Item=item)
                for what, item in special
            },
            **{
                f"change {what}": self.update(ledger, item, "#row", row="row")
                for what, item in special
            },
            **{
                f"delete {what}": partial(dynamodb.delete_item, TableName=ledger, Key=item)
                for what, item in special
            },
            "delete from the ledger": lambda: dynamodb.delete_item(TableName=ledger, Key=entry),
        }

    def transactions(self) -> dict[str, Attempt]:
        table, ledger, key = self.stack.table, self.stack.ledger, self.key

        def transaction(*items: dict[str, Any]) -> Attempt:
            return partial(self.dynamodb.transact_write_items, TransactItems=items)

        def put(table: str, item: dict[str, Any]) -> dict[str, Any]:
            return {"Put": {"TableName": table, "Item": item}}

        return {
            "write within a transaction": transaction(
                put(table, {**key, "version": {"S": f"{9:019}"}})
            ),
            "delete within a transaction": transaction(
                {"Delete": {"TableName": table, "Key": key}}
            ),
            **{
                f"write {what} within a transaction": transaction(
                    put(ledger, self.entry), put(ledger, item)
                )
                for what, item in self.special_entries.items()
            },
        }


def with_hashes(names: dict[str, str]) -> dict[str, str]:
    """Returns ExpressionAttributeNames."""
    return {f"#{placeholder}": attribute for placeholder, attribute in names.items()}


# The queries of the roles that read whole rows of the table of secrets.
WHOLE_ROWS = {
    "query whole rows",
    "query a wrapped key",
    "query the highest version",
    "query what the highest version is",
    "query a ciphertext",
}
# The calls of the roles that move versions to the ledger and back. These do not include writes of
# policies, runs and tokens, which are in the ledger, too.
LEDGER = {
    "query events",
    "query tokens",
    "query a deleted ciphertext",
    "query the whole ledger",
    "write the ledger",
    "delete from the ledger",
}


def writes(*places: str) -> set[str]:
    """Returns the writes of these ledger entries, alone and within a transaction."""
    return {f"write {place}{how}" for place in places for how in ("", " within a transaction")}


@pytest.mark.parametrize(
    ("verb", "expected"),
    [
        (
            "put",
            {
                "wrap",
                "write",
                "write within a transaction",
                "query the highest version",
                "query what the highest version is",
                "query events",
                "query tokens",
                "write the ledger",
                *writes("a token"),
            },
        ),
        ("get", {"unwrap", *WHOLE_ROWS, "query revisions", "scan names"}),
        ("list", {"query names", "scan names", "query events"}),
        (
            "delete",
            {"delete", "delete within a transaction", *WHOLE_ROWS, *LEDGER, "delete a policy"},
        ),
        (
            "restore",
            {
                "write",
                "write within a transaction",
                "query the highest version",
                "query what the highest version is",
                *LEDGER,
            },
        ),
        ("remind", {"scan names", "write the ledger"}),
        ("rotate", set()),
        (
            "rewrap",
            {
                "re-encrypt",
                "touch",
                "change a wrapped key",
                "query a wrapped key",
                "query the highest version",
                "query events",
                "query a deleted ciphertext",
                "touch the ledger",
                "change a deleted version",
                "write a run",
            },
        ),
        (
            "reseal",
            {
                "wrap",
                "unwrap",
                "write",
                "write within a transaction",
                "delete",
                "delete within a transaction",
                *WHOLE_ROWS,
                "scan",
                "scan the ledger",
                "query events",
                "query tokens",
                "query a deleted ciphertext",
                "query the whole ledger",
                "write the ledger",
                "touch the ledger",
                "change an event",
                "change a deleted version",
                *writes("a run"),
            },
        ),
        (
            "renew",
            {
                "wrap",
                "write",
                "write within a transaction",
                "query the highest version",
                "query what the highest version is",
                "query events",
                "query tokens",
                "write the ledger",
                *writes("a run", "a policy", "a token"),
            },
        ),
        (
            "policy",
            {
                "query the highest version",
                "query what the highest version is",
                "query events",
                "write the ledger",
                *writes("a policy"),
            },
        ),
    ],
)
def test_stolen_credentials_allow_only_the_calls_of_their_function(
    stack: Stack, as_role: AssumeRole, name: str, verb: str, expected: set[str], show: Show
) -> None:
    stack.put(name, "s")
    allowed = set()
    calls = Attempts(stack, as_role(verb), stack.row(name)).all()
    for what, attempt in calls.items():
        try:
            attempt()
            allowed.add(what)
        except ClientError as error:
            assert error.response["Error"]["Code"] == "AccessDeniedException", (what, error)
    show(role_table(verb, {what: what in allowed for what in calls}))
    assert allowed == expected


def test_a_data_key_moved_to_another_context_opens_nothing(
    stack: Stack, as_role: AssumeRole, name: str
) -> None:
    """ReEncrypt accepts any new context, but the sealed row names the one that it was put with."""
    context, prefix, name = {"team": "payments"}, name, f"{name}/db"
    stack.put(name, "s", context=context)
    row = stack.row(name)
    kms = as_role("rewrap").client("kms", config=ONCE)
    for chosen in ({}, {"team": "mine"}):
        moved = kms.re_encrypt(
            CiphertextBlob=base64.b64decode(row["key"]),
            SourceEncryptionContext=context,
            DestinationKeyId=stack.key_arn,
            DestinationEncryptionContext=chosen,
        )["CiphertextBlob"]
        stack.rows.put_item(Item={**row, "key": base64.b64encode(moved).decode()})
        for _, response in stack.both("get", {"name": name, "context": chosen}):
            assert response.code == "Forbidden"
            assert '"team"' in response.message and "payments" not in response.message
        for _, response in stack.both("get", {"prefix": prefix, "context": chosen}):
            assert response.code == "Forbidden"
        assert stack.invoke("get", {"name": name, "context": context}).code == "Integrity"
    stack.rows.put_item(Item=row)
    assert stack.get(name, context=context)["secret"] == "s"


def test_the_names_index_contains_no_ciphertext(
    stack: Stack, as_role: AssumeRole, name: str
) -> None:
    stack.put(name, "s", comment="c", context={"a": "b"}, ttl=60)
    items = (
        as_role("list")
        .client("dynamodb", config=ONCE)
        .query(
            TableName=stack.table,
            IndexName="names",
            KeyConditionExpression="#name = :name",
            ExpressionAttributeNames={"#name": "name"},
            ExpressionAttributeValues={":name": {"S": name}},
        )["Items"]
    )
    described = {"name", "version", "comment", "context", "created_at", "expires_at", "revision"}
    assert [set(item) for item in items] == [described]
