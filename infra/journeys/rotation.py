"""Stacks to rotate, on a table and keys of their own, and their runs: start, wait, report."""

import json
import os
import subprocess
import time
from typing import Any

from conftest import ROOT, Stack, client


class Rotating:
    """A stack with a table of its own, both named for `word` and this process.

    Nothing that an earlier session left under another key can interfere.
    """

    def __init__(self, word: str) -> None:
        self.name = f"{word}-{os.getpid()}"
        self.table = f"{word}-store-{os.getpid()}"
        keys = [("name", "HASH"), ("version", "RANGE")]
        schema = [{"AttributeName": name, "KeyType": kind} for name, kind in keys]
        described = ["comment", "context", "created_at", "expires_at", "revision"]
        # The stream serves to count writes.
        client("dynamodb").create_table(
            TableName=self.table,
            BillingMode="PAY_PER_REQUEST",
            AttributeDefinitions=[{"AttributeName": n, "AttributeType": "S"} for n, _ in keys],
            KeySchema=schema,
            GlobalSecondaryIndexes=[
                {
                    "IndexName": "names",
                    "KeySchema": schema,
                    "Projection": {"ProjectionType": "INCLUDE", "NonKeyAttributes": described},
                }
            ],
            StreamSpecification={"StreamEnabled": True, "StreamViewType": "NEW_IMAGE"},
        )

    def deploy(self, key: str, **parameters: str) -> Stack:
        """Deploys or updates the stack with this KMS key."""
        parameters = {
            "Architecture": "x86_64",
            "ExistingTableName": self.table,
            "ExistingKeyArn": key,
            "LegacyItems": "read",
            "RotationKmsRequestsPerSecond": "400",
            "RenewSchedule": "rate(365 days)",
            "RetiredKeyArns": "",
            **parameters,
        }
        command = [
            str(ROOT / "infra/local/deploy"),
            "--stack-name",
            self.name,
            "--parameter-overrides",
        ]
        # Empty values too: an omitted parameter keeps its previous value.
        command += [f'{name}="{value}"' for name, value in parameters.items()]
        done = subprocess.run(command, capture_output=True, text=True)
        assert done.returncode == 0, done.stdout + done.stderr
        return Stack(self.name)


def start(stack: Stack, action: str, **options: Any) -> str:
    """Starts a run and returns the ARN of its execution."""
    execution = client("stepfunctions").start_execution(
        stateMachineArn=stack.machine, input=json.dumps({"action": action, **options})
    )
    return execution["executionArn"]


def ended(execution: str, seconds: float = 300) -> dict[str, Any]:
    """Waits until an execution has ended, and returns its description."""
    machines, deadline = client("stepfunctions"), time.monotonic() + seconds
    while True:
        description = machines.describe_execution(executionArn=execution)
        if description["status"] != "RUNNING":
            return description
        assert time.monotonic() < deadline, "the execution did not end"
        time.sleep(0.1)


def run(stack: Stack, action: str, **options: Any) -> dict[str, Any]:
    """Does a run to its end and returns its report. Fails unless it succeeds."""
    execution = ended(start(stack, action, **options))
    assert execution["status"] == "SUCCEEDED", execution
    return json.loads(execution["output"])


def report(stack: Stack, action: str) -> Any:
    """Returns the report of the latest run of an action."""
    return stack.done("list", list="report", action=action)


def failures(stack: Stack, action: str) -> dict[tuple[str, int | None], str]:
    """Returns why a run failed for each (name, version), read in several pages."""
    items = stack.pages_of("list", "failures", list="report", action=action, limit=7)
    return {(item["name"], item.get("version")): item["reason"] for item in items}


def writes(table: str) -> dict[tuple[tuple[str, ...], str], int]:
    """Returns how often each item of a table was written, by (key, event name).

    Counts the records of the table's stream.
    """
    streams = client("dynamodbstreams")
    arn = client("dynamodb").describe_table(TableName=table)["Table"]["LatestStreamArn"]
    counts: dict[tuple[tuple[str, ...], str], int] = {}
    shards = streams.describe_stream(StreamArn=arn)["StreamDescription"]["Shards"]
    for shard in shards:
        iterator = streams.get_shard_iterator(
            StreamArn=arn, ShardId=shard["ShardId"], ShardIteratorType="TRIM_HORIZON"
        )["ShardIterator"]
        while iterator:
            page = streams.get_records(ShardIterator=iterator, Limit=1000)
            for record in page["Records"]:
                keys = tuple(sorted(value["S"] for value in record["dynamodb"]["Keys"].values()))
                counts.setdefault((keys, record["eventName"]), 0)
                counts[keys, record["eventName"]] += 1
            iterator = page.get("NextShardIterator") if page["Records"] else None
    return counts
