"""Fixtures of the journeys: the deployed stack, its callers, old clients, and faults on demand."""

import itertools
import json
import os
import shlex
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from botocore.credentials import Credentials

import old_clients
from old_clients import CommandLine, NodeClient
from stack import ONCE, Response, Stack, allow, client, send, user

__all__ = [
    "ACCOUNT",
    "ENDPOINT",
    "NUMBERS",
    "ONCE",
    "REGION",
    "ROOT",
    "TOOLS",
    "CommandLine",
    "Credentials",
    "Faults",
    "MakeCaller",
    "NodeClient",
    "Response",
    "Show",
    "Stack",
    "allow",
    "client",
    "send",
    "user",
]

# Creates an IAM user that may call these paths of the API; returns its credentials.
MakeCaller = Callable[..., Credentials]
# Prints a text at the end of the session.
Show = Callable[[str], None]

ROOT = Path(__file__).resolve().parents[2]
TOOLS = ROOT / ".local"


def use_local_aws() -> None:
    """Sets the environment variables of this worker's own local AWS."""
    worker = os.environ.get("PYTEST_XDIST_WORKER", "gw0").removeprefix("gw")
    folder = Path(os.environ["COFFER_JOURNEYS"]) / worker
    for line in (folder / "env").read_text().splitlines():
        variable, _, value = shlex.split(line)[1].partition("=")
        os.environ[variable] = value
    os.environ["COFFER_LOCAL"] = str(folder)
    os.environ["COFFER_LOCAL_PORT"] = os.environ["AWS_ENDPOINT_URL"].rpartition(":")[2]


use_local_aws()
ENDPOINT = os.environ["AWS_ENDPOINT_URL"]
REGION = os.environ["AWS_REGION"]
ACCOUNT = os.environ["COFFER_KEY_ARN"].split(":")[4]


# ---- the session ----

# The files that take longest, which workers begin with, so that all workers end at about the same
# time.
LONGEST = (
    "test_rewrap",
    "test_faults",
    "test_runs",
    "test_crashes",
    "test_bundle_reads",
    "test_reseal",
    "test_openapi",
    "test_recovery_concurrency",
    "test_adoption",
    "test_old_clients",
)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    def rank(item: pytest.Item) -> int:
        return LONGEST.index(item.path.stem) if item.path.stem in LONGEST else len(LONGEST)

    items.sort(key=rank)


@pytest.fixture
def show(request: pytest.FixtureRequest) -> Show:
    """Prints a text at the end of the session, because workers have no terminal."""

    def show(text: str) -> None:
        request.node.user_properties.append(("shown", text))

    return show


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    reports = [report for reports in terminalreporter.stats.values() for report in reports]
    for report in reports:
        for kind, text in getattr(report, "user_properties", []):
            if kind == "shown" and report.when == "call":
                terminalreporter.write_line(f"{report.nodeid.split('::')[-1]}: {text}")


@pytest.fixture(scope="session")
def stack() -> Stack:
    """The stack that this worker's local AWS has deployed."""
    return Stack(os.environ["COFFER_STACK"])


@pytest.fixture(scope="session")
def kms() -> Any:
    return client("kms")


@pytest.fixture(scope="session")
def iam() -> Any:
    return client("iam")


NUMBERS = itertools.count(1)


@pytest.fixture
def name(request: pytest.FixtureRequest) -> str:
    """Returns a name that no other test uses."""
    test = request.node.originalname.removeprefix("test_")
    return f"{test}/{os.getpid()}-{next(NUMBERS)}"


@pytest.fixture
def caller(iam: Any, stack: Stack) -> MakeCaller:
    """Creates a user whose policy allows the given routes of the API, as METHOD/path."""
    numbers = itertools.count(1)

    def make(*paths: str) -> Credentials:
        arn = f"arn:aws:execute-api:{REGION}:{ACCOUNT}:{stack.api_id}/$default"
        policy = allow("execute-api:Invoke", [f"{arn}/{path}" for path in paths])
        return user(iam, f"caller-{os.getpid()}-{next(numbers)}-{next(NUMBERS)}", policy)

    return make


class Faults:
    """The faults that the local AWS injects, and its count of calls."""

    def _post(self, path: str, body: Any) -> dict[str, Any]:
        status, _, data = send("POST", f"{ENDPOINT}/_local/{path}", json.dumps(body), {})
        assert status == 200
        return json.loads(data)

    def set(self, *faults: dict[str, Any]) -> None:
        """Replaces all faults by these. See `aws.faults` for their fields."""
        self._post("faults", faults)

    def calls(self) -> dict[str, int]:
        """Returns the number of calls of each KMS and DynamoDB operation since the last `calls`."""
        return self._post("calls", {})

    def rates(self) -> dict[str, float]:
        """Returns the highest rate of each operation since the last `calls`.

        In calls per second, over any five seconds.
        """
        return self._post("rates", {})


@pytest.fixture
def faults() -> Iterator[Faults]:
    """Injects faults; none are left when a test starts or ends."""
    faults = Faults()
    faults.set()
    faults.calls()
    yield faults
    faults.set()


# ---- old clients, as an IAM user that the stack's ClientPrincipalArns names ----


@pytest.fixture(scope="session")
def client_environment(stack: Stack) -> dict[str, str]:
    """Returns the environment variables of an old client's process."""
    return old_clients.environment_of_user(stack)


@pytest.fixture(scope="session")
def credstash(client_environment: dict[str, str], stack: Stack) -> CommandLine:
    """Runs credstash as published. Returns (exit code, stdout, stderr)."""
    return partial(old_clients.credstash, client_environment, stack.table)


@pytest.fixture(scope="session")
def nodecredstash(client_environment: dict[str, str], stack: Stack) -> Iterator[NodeClient]:
    """Calls nodecredstash as published, but bundled: `nodecredstash("getSecret", name=...)`."""
    with old_clients.nodecredstash(client_environment, stack.table) as call:
        yield call


@pytest.fixture(scope="session")
def nodecredstash_as_root(stack: Stack) -> Iterator[NodeClient]:
    """Calls nodecredstash as the account's root, for the tables of other stacks."""
    with old_clients.nodecredstash(os.environ, stack.table) as call:
        yield call
