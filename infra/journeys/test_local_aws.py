"""What the local AWS adds to ministack behaves as AWS documents it.

If one of these tests fails, the other journeys prove nothing.
"""

import json
import os
import time
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from botocore.exceptions import ClientError

from conftest import ACCOUNT, NUMBERS, REGION, Faults, Stack, allow, client, user


@pytest.fixture(scope="module")
def key(kms: Any) -> str:
    """Creates a KMS key and returns its ARN."""
    return kms.create_key()["KeyMetadata"]["Arn"]


def code(call: Callable[..., Any], **arguments: Any) -> str:
    """Returns the error code of a call, or OK."""
    try:
        call(**arguments)
    except ClientError as error:
        return error.response["Error"]["Code"]
    return "OK"


def wrapped(kms: Any, key: str, **context: str) -> dict[str, Any]:
    """Returns a data key of this KMS key, in plaintext and wrapped."""
    return kms.generate_data_key(KeyId=key, NumberOfBytes=64, EncryptionContext=context)


def test_kms_refuses_an_altered_blob_or_context(kms: Any, key: str) -> None:
    data_key = wrapped(kms, key, a="b")
    blob = data_key["CiphertextBlob"]
    opened = kms.decrypt(CiphertextBlob=blob, EncryptionContext={"a": "b"})
    assert opened["Plaintext"] == data_key["Plaintext"]
    for position in range(0, len(blob), 7):
        changed = bytearray(blob)
        changed[position] ^= 1
        refused = code(kms.decrypt, CiphertextBlob=bytes(changed), EncryptionContext={"a": "b"})
        assert refused == "InvalidCiphertextException", position
    contexts: list[dict[str, str]] = [{}, {"a": "c"}, {"a": "b", "c": "d"}]
    for context in contexts:
        refused = code(kms.decrypt, CiphertextBlob=blob, EncryptionContext=context)
        assert refused == "InvalidCiphertextException"


def test_kms_refuses_the_wrong_key_and_oversized_input(kms: Any, key: str) -> None:
    other = kms.create_key()["KeyMetadata"]["Arn"]
    blob = wrapped(kms, key)["CiphertextBlob"]
    assert code(kms.decrypt, CiphertextBlob=blob, KeyId=other) == "IncorrectKeyException"
    assert code(kms.decrypt, CiphertextBlob=blob, KeyId=key) == "OK"
    assert code(kms.encrypt, KeyId=key, Plaintext=b"x" * 4097) == "ValidationException"
    large = {"k": "v" * 8192}
    assert (
        code(kms.generate_data_key, KeyId=key, NumberOfBytes=64, EncryptionContext=large)
        == "ValidationException"
    )


def test_kms_reencrypts_and_rotates(kms: Any, key: str) -> None:
    other = kms.create_key()["KeyMetadata"]["Arn"]
    data_key = wrapped(kms, key, a="b")
    moved = kms.re_encrypt(
        CiphertextBlob=data_key["CiphertextBlob"],
        SourceEncryptionContext={"a": "b"},
        DestinationKeyId=other,
        DestinationEncryptionContext={"c": "d"},
    )
    assert moved["SourceKeyId"] == key and moved["KeyId"] == other
    blob = moved["CiphertextBlob"]
    opened = kms.decrypt(CiphertextBlob=blob, KeyId=other, EncryptionContext={"c": "d"})
    assert opened["Plaintext"] == data_key["Plaintext"]
    kms.rotate_key_on_demand(KeyId=key)
    assert len(kms.list_key_rotations(KeyId=key)["Rotations"]) == 1


def test_kms_reports_which_key_material_it_used(kms: Any) -> None:
    """ReEncrypt with the same key reports the same key material until the key is rotated."""
    key = kms.create_key()["KeyMetadata"]["Arn"]
    first = wrapped(kms, key, a="b")

    def reencrypt(blob: bytes) -> tuple[bytes, bool]:
        context = {
            "SourceEncryptionContext": {"a": "b"},
            "DestinationEncryptionContext": {"a": "b"},
        }
        moved = kms.re_encrypt(
            CiphertextBlob=blob, SourceKeyId=key, DestinationKeyId=key, **context
        )
        ids = moved["SourceKeyMaterialId"], moved["DestinationKeyMaterialId"]
        assert all(len(key_material) == 64 for key_material in ids)
        return moved["CiphertextBlob"], ids[0] == ids[1]

    assert reencrypt(first["CiphertextBlob"])[1]
    kms.rotate_key_on_demand(KeyId=key)
    blob, same = reencrypt(first["CiphertextBlob"])
    assert not same and reencrypt(blob)[1]
    for wrapped_key in (first["CiphertextBlob"], blob):
        opened = kms.decrypt(CiphertextBlob=wrapped_key, KeyId=key, EncryptionContext={"a": "b"})
        assert opened["Plaintext"] == first["Plaintext"]
    kms.disable_key(KeyId=key)
    other = kms.create_key()["KeyMetadata"]["Arn"]
    for source in (key, other):
        refused = code(
            kms.re_encrypt,
            CiphertextBlob=blob,
            SourceKeyId=source,
            DestinationKeyId=other,
            SourceEncryptionContext={"a": "b"},
        )
        expected = "DisabledException" if source == key else "IncorrectKeyException"
        assert refused == expected


def test_reencrypt_needs_permission_for_both_keys(iam: Any, kms: Any, key: str) -> None:
    other = kms.create_key()["KeyMetadata"]["Arn"]
    blob = wrapped(kms, key)["CiphertextBlob"]
    for source, destination, expected in (
        (key, other, "OK"),
        (key, key, "AccessDeniedException"),
        (other, other, "AccessDeniedException"),
    ):
        policies = allow("kms:ReEncryptFrom", source), allow("kms:ReEncryptTo", destination)
        limited = client("kms", user(iam, f"mover-{next(NUMBERS)}", *policies))
        result = code(
            limited.re_encrypt, CiphertextBlob=blob, SourceKeyId=key, DestinationKeyId=other
        )
        assert result == expected


def test_iam_evaluates_a_nested_attribute_as_its_outermost_one(iam: Any, stack: Stack) -> None:
    ledger = f"arn:aws:dynamodb:{REGION}:{ACCOUNT}:table/{stack.ledger}"
    policy = allow("dynamodb:UpdateItem", ledger)
    policy["Statement"][0]["Condition"] = {
        "ForAllValues:StringEquals": {"dynamodb:Attributes": ["name", "entry", "row"]}
    }
    limited = client("dynamodb", user(iam, f"inner-{next(NUMBERS)}", policy))

    def update(path: str, **names: str) -> str:
        return code(
            limited.update_item,
            TableName=stack.ledger,
            Key={"name": {"S": "inner"}, "entry": {"S": "e"}},
            UpdateExpression=f"SET {path} = :v",
            ConditionExpression="attribute_exists(#name)",
            ExpressionAttributeNames={"#name": "name", **names},
            ExpressionAttributeValues={":v": {"S": "x"}},
        )

    inner = {"#row": "row", "#key": "key"}
    assert update("#row.#key", **inner) == "ConditionalCheckFailedException"
    assert update("#key", **{"#key": "key"}) == "AccessDeniedException"


def test_rates_are_measured_over_five_seconds(kms: Any, key: str, faults: Faults) -> None:
    faults.calls()
    for _ in range(10):
        wrapped(kms, key)
    assert 0.2 <= faults.rates()["kms:GenerateDataKey"] <= 2


def test_iam_evaluates_the_encryption_context(iam: Any, kms: Any, key: str) -> None:
    policy = allow("kms:GenerateDataKey", key)
    policy["Statement"][0]["Condition"] = {"StringEquals": {"kms:EncryptionContext:app": "web"}}
    limited = client("kms", user(iam, f"context-{next(NUMBERS)}", policy))
    generate = limited.generate_data_key
    right = code(generate, KeyId=key, NumberOfBytes=64, EncryptionContext={"app": "web"})
    wrong = code(generate, KeyId=key, NumberOfBytes=64, EncryptionContext={"app": "other"})
    assert (right, wrong) == ("OK", "AccessDeniedException")


def test_iam_evaluates_leading_keys_attributes_and_select(
    iam: Any, stack: Stack, name: str
) -> None:
    stack.put(name, "s")
    table = f"arn:aws:dynamodb:{REGION}:{ACCOUNT}:table/{stack.table}"
    policy = allow("dynamodb:Query", table)
    policy["Statement"][0]["Condition"] = {
        "ForAllValues:StringEquals": {
            "dynamodb:LeadingKeys": [name],
            "dynamodb:Attributes": ["name", "version"],
        },
        "StringEquals": {"dynamodb:Select": "SPECIFIC_ATTRIBUTES"},
    }
    limited = client("dynamodb", user(iam, f"keys-{next(NUMBERS)}", policy))

    def query(queried_name: str, attribute: str, **options: Any) -> str:
        return code(
            limited.query,
            TableName=stack.table,
            KeyConditionExpression="#n = :n",
            ProjectionExpression="#a",
            ExpressionAttributeNames={"#n": "name", "#a": attribute},
            ExpressionAttributeValues={":n": {"S": queried_name}},
            **options,
        )

    select = {"Select": "SPECIFIC_ATTRIBUTES"}
    assert query(name, "version", **select) == "OK"
    assert query(name, "contents", **select) == "AccessDeniedException"
    assert query("another", "version", **select) == "AccessDeniedException"
    whole_row = code(
        limited.query,
        TableName=stack.table,
        KeyConditionExpression="#n = :n",
        ExpressionAttributeNames={"#n": "name"},
        ExpressionAttributeValues={":n": {"S": name}},
    )
    assert whole_row == "AccessDeniedException"


def test_a_local_index_returns_whole_rows_on_request(stack: Stack, name: str) -> None:
    revision = stack.put(name, "s")["revision"]
    query = {
        "IndexName": "revision",
        "KeyConditionExpression": "#n = :n AND #r = :r",
        "ExpressionAttributeNames": {"#n": "name", "#r": "revision"},
        "ExpressionAttributeValues": {":n": name, ":r": revision.encode()},
    }
    assert "contents" not in stack.rows.query(**query)["Items"][0]
    assert "contents" in stack.rows.query(**query, Select="ALL_ATTRIBUTES")["Items"][0]


def test_a_scan_of_an_index_keeps_names_together(stack: Stack, name: str) -> None:
    for suffix in "ab":
        for _ in range(3):
            stack.put(f"{name}/{suffix}", "s")
    found: list[str] = []
    cursor: dict[str, Any] = {}
    while True:
        page = stack.rows.scan(IndexName="names", **cursor)
        found += [item["name"] for item in page["Items"] if item["name"].startswith(name)]
        if "LastEvaluatedKey" not in page:
            break
        cursor = {"ExclusiveStartKey": page["LastEvaluatedKey"]}
    assert found == [f"{name}/{suffix}" for suffix in "aaabbb"]


def test_a_fault_ends_after_its_count(kms: Any, key: str, faults: Faults) -> None:
    blob = wrapped(kms, key)["CiphertextBlob"]
    faults.set({"service": "kms", "operation": "Decrypt", "kind": "throttle", "count": 1})
    faults.calls()
    assert code(kms.decrypt, CiphertextBlob=blob) == "ThrottlingException"
    assert code(kms.decrypt, CiphertextBlob=blob) == "OK"
    assert faults.calls() == {"kms:Decrypt": 2}
    assert faults.calls() == {}


def test_a_pipe_filters_transforms_and_sends(stack: Stack) -> None:
    """Uses the stack's own pipe: its filter, and strings, sets and bytes in its template."""
    number = next(NUMBERS)
    queues, events = client("sqs"), client("events")
    url = queues.create_queue(QueueName=f"pipe-{number}")["QueueUrl"]
    pattern = {"source": ["coffer"], "detail": {"name": [{"prefix": f"pipe-{number}"}]}}
    events.put_rule(Name=f"pipe-{number}", EventPattern=json.dumps(pattern))
    arn = f"arn:aws:sqs:{REGION}:{ACCOUNT}:pipe-{number}"
    events.put_targets(Rule=f"pipe-{number}", Targets=[{"Id": "queue", "Arn": arn}])
    complete: dict[str, Any] = {
        "operation": "put",
        "versions": {"1", "2"},
        "at": "now",
        "request_id": 'with "quotes"',
        "hash": b"\xff",
    }
    name = f'pipe-{number}/"quoted"'
    rows: list[tuple[str, dict[str, Any]]] = [
        ("event#1", {"operation": "put"}),
        ("head", complete),
        ("notice#1", {"version": "1"}),
        ("event#2", complete),
    ]
    for entry, row in rows:
        stack.entries.put_item(Item={"name": name, "entry": entry, **row})
    stack.entries.put_item(Item={"name": name, "entry": "event#2", **complete, "at": "later"})
    stack.entries.delete_item(Key={"name": name, "entry": "event#2"})
    received: list[Any] = []
    deadline = time.monotonic() + 60
    while not received and time.monotonic() < deadline:
        received = queues.receive_message(QueueUrl=url, WaitTimeSeconds=1).get("Messages", [])
    (message,) = received
    notification = json.loads(message["Body"])
    assert notification["detail-type"] == "Coffer Secret Changed"
    detail = notification["detail"]
    assert sorted(detail.pop("versions")) == ["1", "2"]
    assert detail == {
        "name": name,
        "operation": "put",
        "at": "now",
        "request_id": 'with "quotes"',
        "entry": "event#2",
        "hash": "/w==",
    }
    events.remove_targets(Rule=f"pipe-{number}", Ids=["queue"])
    events.delete_rule(Name=f"pipe-{number}")


SEGMENTS = 4


@pytest.fixture(scope="module")
def segmented() -> Iterator[str]:
    """Creates a table of 20 names with one row each, and an index with the same keys."""
    dynamodb, table = client("dynamodb"), f"segmented-{os.getpid()}"
    schema = [
        {"AttributeName": "name", "KeyType": "HASH"},
        {"AttributeName": "version", "KeyType": "RANGE"},
    ]
    dynamodb.create_table(
        TableName=table,
        BillingMode="PAY_PER_REQUEST",
        KeySchema=schema,
        AttributeDefinitions=[
            {"AttributeName": key["AttributeName"], "AttributeType": "S"} for key in schema
        ],
        GlobalSecondaryIndexes=[
            {"IndexName": "names", "KeySchema": schema, "Projection": {"ProjectionType": "ALL"}}
        ],
    )
    for number in range(20):
        dynamodb.put_item(
            TableName=table, Item={"name": {"S": f"n{number}"}, "version": {"S": "1"}}
        )
    yield table
    dynamodb.delete_table(TableName=table)


@pytest.mark.parametrize("index", [{}, {"IndexName": "names"}])
@pytest.mark.parametrize("version", ["0", "1", "\U0010ffff"])
def test_a_parallel_scan_starts_within_its_segment(
    segmented: str, index: dict[str, str], version: str
) -> None:
    """A start key may be one that a scan returned (`1`) or an invented one of the same name."""
    dynamodb, seen = client("dynamodb"), 0
    scan: dict[str, Any] = {"TableName": segmented, "TotalSegments": SEGMENTS, **index}
    for segment in range(SEGMENTS):
        rows = dynamodb.scan(**scan, Segment=segment)["Items"]
        seen += len(rows)
        for place, row in enumerate(rows):
            start = {"name": row["name"], "version": {"S": version}}
            page = dynamodb.scan(**scan, Segment=segment, ExclusiveStartKey=start)
            assert page["Items"] == (rows[place:] if version == "0" else rows[place + 1 :])
            for other in set(range(SEGMENTS)) - {segment}:
                with pytest.raises(dynamodb.exceptions.ClientError) as refused:
                    dynamodb.scan(**scan, Segment=other, ExclusiveStartKey=start)
                assert refused.value.response["Error"] == {
                    "Code": "ValidationException",
                    "Message": "The provided starting key is invalid: Invalid ExclusiveStartKey. "
                    "Please use ExclusiveStartKey with correct Segment. "
                    f"TotalSegments: {SEGMENTS} Segment: {other}",
                }
    assert seen == 20
