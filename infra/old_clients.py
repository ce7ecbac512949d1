"""Old clients as published, and the IAM user that they run as."""

import contextlib
import json
import os
import subprocess
import tempfile
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

from stack import Stack, allow, client, user

TOOLS = Path(__file__).resolve().parents[1] / ".local"
# A user that the local stack's parameter ClientPrincipalArns names.
USER = "credstash-client"

# Runs credstash with these arguments; returns its exit code, stdout and stderr.
CommandLine = Callable[..., tuple[int, str, str]]
# Calls a method of nodecredstash; returns `{"ok": ...}` or `{"error": "..."}`.
NodeClient = Callable[..., dict[str, Any]]


def environment_of_user(stack: Stack) -> dict[str, str]:
    """Creates the user, and returns the environment variables of an old client's process."""
    account = stack.key_arn.split(":")[4]
    table = f"arn:aws:dynamodb:{os.environ['AWS_REGION']}:{account}:table/{stack.table}"
    operations = ("GetItem", "PutItem", "Query", "Scan", "DeleteItem")
    credentials = user(
        client("iam"),
        USER,
        allow([f"dynamodb:{operation}" for operation in operations], table),
        allow(["kms:GenerateDataKey", "kms:Decrypt"], stack.key_arn),
    )
    return {
        **os.environ,
        "AWS_ACCESS_KEY_ID": credentials.access_key,
        "AWS_SECRET_ACCESS_KEY": credentials.secret_key,
        "AWS_CONFIG_FILE": "/dev/null",
        "AWS_SHARED_CREDENTIALS_FILE": "/dev/null",
        "NODE_DISABLE_COMPILE_CACHE": "1",
    }


def credstash(environment: Mapping[str, str], table: str, *arguments: str) -> tuple[int, str, str]:
    """Runs credstash on a table, in an empty home. Returns its exit code, stdout and stderr."""
    with tempfile.TemporaryDirectory() as home:
        done = subprocess.run(
            [TOOLS / "journeys/bin/credstash", "-t", table, *arguments],
            env={**environment, "HOME": home},
            cwd=home,
            capture_output=True,
            text=True,
            timeout=60,
        )
    return done.returncode, done.stdout, done.stderr


@contextlib.contextmanager
def nodecredstash(environment: Mapping[str, str], table: str) -> Iterator[NodeClient]:
    """Runs nodecredstash in one process, which takes one call per line."""
    process = subprocess.Popen(
        [TOOLS / "journeys/bin/node", TOOLS / "node/bundle.js"],
        env={**environment, "NODE_DISABLE_COMPILE_CACHE": "1"},
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
    )
    assert process.stdin and process.stdout
    requests, responses = process.stdin, process.stdout

    def call(method: str, **arguments: Any) -> dict[str, Any]:
        request = {"call": method, "with": {"tableName": table, **arguments}}
        requests.write(json.dumps(request) + "\n")
        requests.flush()
        return json.loads(responses.readline())

    yield call
    requests.close()
    process.wait(10)
