"""The deployed stack and everybody who talks to it: callers, old clients, operators."""

import base64
import http.client
import itertools
import json
import os
import shlex
import subprocess
import urllib.parse
from dataclasses import dataclass
from pathlib import Path

import boto3
import pytest
from botocore.auth import SigV4Auth
from botocore.awsrequest import AWSRequest
from botocore.config import Config
from botocore.credentials import Credentials
from boto3.dynamodb.conditions import Key

ROOT = Path(__file__).parents[2]
TOOLS = ROOT / ".local"


def take_local_aws():
    """Takes over the environment of the local AWS that this worker has to itself."""
    worker = os.environ.get("PYTEST_XDIST_WORKER", "gw0").removeprefix("gw")
    place = Path(os.environ["COFFER_JOURNEYS"]) / worker
    for line in (place / "env").read_text().splitlines():
        variable, _, value = shlex.split(line)[1].partition("=")
        os.environ[variable] = value
    os.environ["COFFER_LOCAL"] = str(place)
    os.environ["COFFER_LOCAL_PORT"] = os.environ["AWS_ENDPOINT_URL"].rpartition(":")[2]


take_local_aws()
ENDPOINT = os.environ["AWS_ENDPOINT_URL"]
REGION = os.environ["AWS_REGION"]
ACCOUNT = os.environ["COFFER_KEY_ARN"].split(":")[4]
# Every call of a test is made once: what fails is to be seen.
ONCE = Config(retries={"total_max_attempts": 1}, max_pool_connections=200, read_timeout=60)


def client(service, credentials=None):
    keys = {}
    if credentials:
        keys = {
            "aws_access_key_id": credentials.access_key,
            "aws_secret_access_key": credentials.secret_key,
            "aws_session_token": credentials.token,
        }
    return boto3.client(service, config=ONCE, **keys)


def send(method, url, body, headers):
    """One HTTP request with its path as it is: cleverer clients resolve `..` themselves."""
    host, path = url.removeprefix("http://").split("/", 1)
    connection = http.client.HTTPConnection(host, timeout=60)
    try:
        connection.request(method, f"/{path}", body, headers)
        response = connection.getresponse()
        lower = {name.lower(): value for name, value in response.getheaders()}
        return response.status, lower, response.read()
    finally:
        connection.close()


METHODS = {"put": "PUT", "delete": "DELETE", "restore": "POST", "rotate": "POST"}
POLICIES = {"put": "PUT", "get": "GET", "cancel": "DELETE"}


@dataclass
class Answer:
    """What came back, by whichever door: `code` is OK or the error's."""

    code: str
    body: object
    status: int | None = None
    headers: dict | None = None
    log: str = ""

    @property
    def message(self):
        return self.body["message"]


class Stack:
    """One deployed stack, called by lambda invoke and over HTTP."""

    def __init__(self, name):
        described = client("cloudformation").describe_stacks(StackName=name)["Stacks"][0]
        outputs = {out["OutputKey"]: out["OutputValue"] for out in described["Outputs"]}
        self.name = name
        self.table = outputs["TableName"]
        self.ledger = outputs["LedgerName"]
        self.key_arn = outputs["KeyArn"]
        self.api_id = outputs["ApiId"]
        self.machine = outputs["RotationStateMachineArn"]
        self.functions = {
            key.removesuffix("FunctionName").lower(): value
            for key, value in outputs.items()
            if key.endswith("FunctionName")
        }
        self.rows = boto3.resource("dynamodb", config=ONCE).Table(self.table)
        self.entries = boto3.resource("dynamodb", config=ONCE).Table(self.ledger)
        self._lambda = client("lambda")

    def invoke(self, verb, request, credentials=None):
        """By lambda invoke; `request` is the payload, as an object or as it is."""
        return self.call(self.functions[verb], request, credentials)

    def call(self, function, request, credentials=None):
        """The same of any function."""
        payload = request if isinstance(request, bytes) else json.dumps(request).encode()
        caller = client("lambda", credentials) if credentials else self._lambda
        answer = caller.invoke(FunctionName=function, Payload=payload, LogType="Tail")
        body = json.loads(answer["Payload"].read())
        log = base64.b64decode(answer.get("LogResult", "")).decode()
        if "FunctionError" in answer:
            error = {"code": body.get("errorType"), "message": body.get("errorMessage")}
            return Answer(error["code"], error, log=log)
        return Answer("OK", body, log=log)

    def http(self, method, path, query="", body=None, headers=None, credentials="root", quote=True):
        """By HTTP, signed as `credentials` ("root" for the account's, None for unsigned)."""
        if quote:
            path = urllib.parse.quote(path, safe="/-_.~")
        url = f"{ENDPOINT}/_aws/execute-api/{self.api_id}/$default{path}"
        url += f"?{query}" if query else ""
        if body is not None and not isinstance(body, bytes):
            body = json.dumps(body).encode()
        headers = {"content-type": "application/json", **(headers or {})}
        request = AWSRequest(method, url, data=body or b"", headers=headers)
        if credentials:
            if credentials == "root":
                credentials = Credentials("test", "test")
            SigV4Auth(credentials, "execute-api", REGION).add_auth(request)
        status, got, data = send(method, url, body, dict(request.headers))
        content = json.loads(data) if "json" in got.get("content-type", "") else data
        code = "OK" if status == 200 else "?"
        if isinstance(content, dict) and status != 200:
            code = content.get("code", f"HTTP {status}")
        return Answer(code, content, status, got)

    def both(self, verb, request):
        """The same request by both doors, as (origin, answer)."""
        yield "direct", self.invoke(verb, request)
        yield "http", self.by_http(verb, request)

    def by_http(self, verb, request, **how):
        """A request of fields the way an HTTP client would send it."""
        request = dict(request)
        method = "GET"
        resource = request.pop("list", None)
        part, place = ("prefix", "bundle") if "prefix" in request else ("name", "secrets")
        if resource == "report":
            part, place = "action", "reports"
        elif verb == "list":
            place = resource or ("versions" if "name" in request else "names")
        elif verb in ("restore", "rotate"):
            place = verb
        elif verb == "policy":
            place, method = "policies", POLICIES[request.pop("policy")]
        path = f"/{place}"
        if part in request:
            value = request.pop(part)
            path += f"/~{value}" if value.startswith("/") else f"/{value}"
        method = METHODS.get(verb, method)
        if method in ("PUT", "POST"):
            return self.http(method, path, body=request, **how)
        pairs = []
        for field, value in request.items():
            if isinstance(value, dict):
                pairs += [(f"{field}.{key}", entry) for key, entry in value.items()]
            else:
                pairs.append((field, json.dumps(value) if isinstance(value, (bool, list)) else value))
        query = urllib.parse.urlencode(pairs, quote_via=urllib.parse.quote)
        return self.http(method, path, query=query, **how)

    def put(self, name, secret=None, **fields):
        """Puts, and expects it to work."""
        if secret is not None:
            fields["secret"] = secret
        return self.done("put", name=name, **fields)

    def get(self, name, **fields):
        """Gets, and expects it to work."""
        return self.done("get", name=name, **fields)

    def done(self, verb, **request):
        """What is answered, where it is expected to work."""
        answer = self.invoke(verb, request)
        assert answer.code == "OK", answer
        return answer.body

    def patiently(self, verb, **request):
        """The same, asked again where AWS did not do its part, as the state machine does."""
        for _ in range(20):
            answer = self.invoke(verb, request)
            if answer.code != "Unavailable":
                break
        assert answer.code == "OK", answer
        return answer.body

    def each_page(self, verb, **request):
        """Page by page, all that is answered."""
        more = {}
        while True:
            page = self.done(verb, **request, **more)
            yield page
            if "next" not in page:
                return
            more = {"next": page["next"]}

    def pages(self, verb, field, **request):
        """All that is answered under `field`."""
        return [each for page in self.each_page(verb, **request) for each in page[field]]

    def pages_of(self, verb, field, **request):
        """The same where a page need not have it."""
        return [each for page in self.each_page(verb, **request) for each in page.get(field, [])]

    def history(self, name):
        """What was done to a name, newest first."""
        return self.pages("list", "events", list="history", name=name)

    def verify(self, name):
        """Whether the record of a name is whole, and the entries that are not."""
        answer = self.done("list", list="history", name=name, verify=True)
        assert answer["whole"] == ("broken" not in answer)
        return {entry["entry"]: entry["fault"] for entry in answer.get("broken", [])}

    def entries_of(self, name, kind=""):
        """The entries of a name as they lie in the ledger, in their order."""
        found = self._all(self.entries, name)
        return [entry for entry in found if entry["entry"].startswith(kind)]

    def versions_of(self, name):
        """The rows of a name as they lie in the table, oldest first."""
        return self._all(self.rows, name)

    def _all(self, table, name):
        rows, more = [], {}
        while True:
            page = table.query(
                KeyConditionExpression=Key("name").eq(name), ConsistentRead=True, **more
            )
            rows += page["Items"]
            if "LastEvaluatedKey" not in page:
                return rows
            more = {"ExclusiveStartKey": page["LastEvaluatedKey"]}

    def row(self, name, version=1):
        key = {"name": name, "version": f"{version:019}"}
        return self.rows.get_item(Key=key, ConsistentRead=True)["Item"]

    def role(self, verb):
        """The name of the role of a function."""
        config = self._lambda.get_function_configuration(FunctionName=self.functions[verb])
        return config["Role"].split("/")[-1]

    def logs(self, verb=None):
        """Every line that one function has logged, or every function and the API."""
        logs = client("logs")
        if verb:
            function = self.functions[verb]
            config = self._lambda.get_function_configuration(FunctionName=function)
            groups = [config["LoggingConfig"]["LogGroup"]]
        else:
            groups = [
                group["logGroupName"]
                for page in logs.get_paginator("describe_log_groups").paginate()
                for group in page["logGroups"]
            ]
        lines = []
        for group in groups:
            pages = logs.get_paginator("filter_log_events").paginate(logGroupName=group)
            lines += [event["message"] for page in pages for event in page["events"]]
        return "\n".join(lines)


# ---- the run ----


@pytest.fixture
def show(request):
    """Adds a text to what is printed at the end of the run."""
    return lambda text: request.node.user_properties.append(("shown", text))


def pytest_terminal_summary(terminalreporter):
    reports = [each for stat in terminalreporter.stats.values() for each in stat]
    for report in reports:
        for kind, text in getattr(report, "user_properties", []):
            if kind == "shown" and report.when == "call":
                terminalreporter.write_line(f"{report.nodeid.split('::')[-1]}: {text}")


@pytest.fixture(scope="session")
def stack():
    return Stack(os.environ["COFFER_STACK"])


@pytest.fixture(scope="session")
def kms():
    return client("kms")


@pytest.fixture(scope="session")
def iam():
    return client("iam")


NUMBERS = itertools.count(1)


@pytest.fixture
def name(request):
    """A name that no other test uses."""
    test = request.node.originalname.removeprefix("test_")
    return f"{test}/{os.getpid()}-{next(NUMBERS)}"


def allow(action, resource, effect="Allow"):
    return {
        "Version": "2012-10-17",
        "Statement": [{"Effect": effect, "Action": action, "Resource": resource}],
    }


def user(iam, user_name, *policies):
    """An IAM user with these policies, and its credentials."""
    try:
        iam.create_user(UserName=user_name)
    except iam.exceptions.EntityAlreadyExistsException:
        pass
    for number, policy in enumerate(policies):
        iam.put_user_policy(
            UserName=user_name, PolicyName=f"policy-{number}", PolicyDocument=json.dumps(policy)
        )
    key = iam.create_access_key(UserName=user_name)["AccessKey"]
    return Credentials(key["AccessKeyId"], key["SecretAccessKey"])


@pytest.fixture
def caller(iam, stack):
    """Makes a user whose policy allows the given paths of the API, as METHOD/path."""
    numbers = itertools.count(1)

    def make(*paths):
        arn = f"arn:aws:execute-api:{REGION}:{ACCOUNT}:{stack.api_id}/$default"
        policy = allow("execute-api:Invoke", [f"{arn}/{path}" for path in paths])
        return user(iam, f"caller-{os.getpid()}-{next(numbers)}-{next(NUMBERS)}", policy)

    return make


class Faults:
    """The local AWS's own failures and its count of calls."""

    def _post(self, what, body):
        status, _, data = send("POST", f"{ENDPOINT}/_local/{what}", json.dumps(body), {})
        assert status == 200
        return json.loads(data)

    def set(self, *faults):
        self._post("faults", faults)

    def calls(self):
        """The calls of KMS and DynamoDB since the last time."""
        return self._post("calls", {})

    def rates(self):
        """How many of each call a second there were since then, at the most, for five seconds."""
        return self._post("rates", {})


@pytest.fixture
def faults():
    faults = Faults()
    faults.set()
    faults.calls()
    yield faults
    faults.set()


# ---- old clients: as an IAM user that the stack's ClientPrincipalArns names ----


@pytest.fixture(scope="session")
def client_environment(iam, stack):
    """The environment of a process that runs an old client."""
    table = f"arn:aws:dynamodb:{REGION}:{ACCOUNT}:table/{stack.table}"
    verbs = ("GetItem", "PutItem", "Query", "Scan", "DeleteItem")
    keys = user(
        iam,
        "credstash-client",
        allow([f"dynamodb:{verb}" for verb in verbs], table),
        allow(["kms:GenerateDataKey", "kms:Decrypt"], stack.key_arn),
    )
    return {
        **os.environ,
        "AWS_ACCESS_KEY_ID": keys.access_key,
        "AWS_SECRET_ACCESS_KEY": keys.secret_key,
        "AWS_CONFIG_FILE": "/dev/null",
        "AWS_SHARED_CREDENTIALS_FILE": "/dev/null",
        "NODE_DISABLE_COMPILE_CACHE": "1",
    }


@pytest.fixture(scope="session")
def credstash(client_environment, stack, tmp_path_factory):
    """credstash's command line, as published. Answers (exit code, stdout, stderr)."""
    home = tmp_path_factory.mktemp("credstash")

    def run(*arguments):
        done = subprocess.run(
            [TOOLS / "journeys/bin/credstash", "-t", stack.table, *arguments],
            env={**client_environment, "HOME": str(home)},
            cwd=home,
            capture_output=True,
            text=True,
            timeout=60,
        )
        return done.returncode, done.stdout, done.stderr

    return run


@pytest.fixture(scope="session")
def nodecredstash(client_environment, stack):
    """nodecredstash, as published but bundled: `call("getSecret", name=...)`."""
    yield from node(client_environment, stack.table)


@pytest.fixture(scope="session")
def nodecredstash_as_root(stack):
    """The same as the account's root, for tables of other stacks."""
    yield from node(os.environ, stack.table)


def node(environment, table):
    process = subprocess.Popen(
        [TOOLS / "journeys/bin/node", TOOLS / "node/bundle.js"],
        env={**environment, "NODE_DISABLE_COMPILE_CACHE": "1"},
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
    )

    def call(method, **arguments):
        request = {"call": method, "with": {"tableName": table, **arguments}}
        process.stdin.write(json.dumps(request) + "\n")
        process.stdin.flush()
        return json.loads(process.stdout.readline())

    yield call
    process.stdin.close()
    process.wait(10)
