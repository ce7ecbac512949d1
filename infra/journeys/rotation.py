"""A stack of its own to rotate, on a table and keys that can be changed; runs, started and awaited."""

import json
import os
import subprocess
import time

from conftest import ROOT, Stack, client


class Rotating:
    """A stack of this session and this word alone: what an earlier one left under another key
    would be in the way."""

    def __init__(self, word):
        self.name = f"{word}-{os.getpid()}"
        self.table = f"{word}-store-{os.getpid()}"
        keys = [("name", "HASH"), ("version", "RANGE")]
        schema = [{"AttributeName": name, "KeyType": kind} for name, kind in keys]
        described = ["comment", "context", "created_at", "expires_at", "revision"]
        # With a stream, by which every write can be counted.
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

    def deploy(self, key, **parameters):
        """Deploys, or changes, the stack with this key."""
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
        command = [ROOT / "infra/local/deploy", "--stack-name", self.name, "--parameter-overrides"]
        # An empty value has to be said: what is left out stays as it was.
        command += [f'{name}="{value}"' for name, value in parameters.items()]
        done = subprocess.run(command, capture_output=True, text=True)
        assert done.returncode == 0, done.stdout + done.stderr
        return Stack(self.name)


def start(stack, action, **more):
    execution = client("stepfunctions").start_execution(
        stateMachineArn=stack.machine, input=json.dumps({"action": action, **more})
    )
    return execution["executionArn"]


def ended(execution, seconds=300):
    """How an execution ended, once it has."""
    machines, deadline = client("stepfunctions"), time.monotonic() + seconds
    while True:
        told = machines.describe_execution(executionArn=execution)
        if told["status"] != "RUNNING":
            return told
        assert time.monotonic() < deadline, "the execution did not end"
        time.sleep(0.1)


def run(stack, action, **more):
    """A whole run, and its report."""
    told = ended(start(stack, action, **more))
    assert told["status"] == "SUCCEEDED", told
    return json.loads(told["output"])


def report(stack, action):
    return stack.done("list", list="report", action=action)


def failures(stack, action):
    """All that a run could not do, page by page, by name and version."""
    told = stack.pages_of("list", "failures", list="report", action=action, limit=7)
    return {(each["name"], each.get("version")): each["reason"] for each in told}


def writes(table):
    """How often each item of a table was written, by its stream."""
    streams = client("dynamodbstreams")
    arn = client("dynamodb").describe_table(TableName=table)["Table"]["LatestStreamArn"]
    counts = {}
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
