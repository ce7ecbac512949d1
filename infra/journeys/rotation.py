"""A stack of its own to rotate, on a table and keys that can be changed; runs, started and awaited."""

import json
import os
import subprocess
import time

from botocore.exceptions import ClientError
from conftest import ROOT, Stack, client

NAME, TABLE = "rotating", "rotating-store"


def make_table():
    """With a stream, by which every write can be counted."""
    dynamodb = client("dynamodb")
    try:
        dynamodb.create_table(
            TableName=TABLE,
            BillingMode="PAY_PER_REQUEST",
            AttributeDefinitions=[
                {"AttributeName": name, "AttributeType": "S"} for name in ("name", "version")
            ],
            KeySchema=[
                {"AttributeName": "name", "KeyType": "HASH"},
                {"AttributeName": "version", "KeyType": "RANGE"},
            ],
            GlobalSecondaryIndexes=[
                {
                    "IndexName": "names",
                    "KeySchema": [
                        {"AttributeName": "name", "KeyType": "HASH"},
                        {"AttributeName": "version", "KeyType": "RANGE"},
                    ],
                    "Projection": {
                        "ProjectionType": "INCLUDE",
                        "NonKeyAttributes": [
                            *("comment", "context", "created_at", "expires_at", "revision"),
                        ],
                    },
                }
            ],
            StreamSpecification={"StreamEnabled": True, "StreamViewType": "NEW_IMAGE"},
        )
    except dynamodb.exceptions.ResourceInUseException:
        pass


def deploy(key, **parameters):
    """Deploys, or changes, the stack on that table and this key."""
    make_table()
    parameters = {
        "Architecture": "x86_64",
        "ExistingTableName": TABLE,
        "ExistingKeyArn": key,
        "LegacyItems": "read",
        "RotationKmsRequestsPerSecond": "400",
        "RenewSchedule": "rate(365 days)",
        "RetiredKeyArns": "",
        **parameters,
    }
    command = [ROOT / "infra/local/deploy", "--stack-name", NAME, "--parameter-overrides"]
    command += [f"{name}={value}" for name, value in parameters.items()]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    return Stack(NAME)


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
