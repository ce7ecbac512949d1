"""The client of a deployed stack, for the journeys and the demo.

Reads the environment that `.local/env` sets, when it is used rather than when it is imported.
"""

import base64
import contextlib
import http.client
import json
import os
import urllib.parse
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

import boto3
from boto3.dynamodb.conditions import Key
from botocore.auth import SigV4Auth
from botocore.awsrequest import AWSRequest
from botocore.config import Config
from botocore.credentials import Credentials

# No retries: a test must see every failure.
ONCE = Config(retries={"total_max_attempts": 1}, max_pool_connections=200, read_timeout=60)


def client(service: str, credentials: Credentials | None = None) -> Any:
    """Returns a boto3 client, by default with the credentials of the account's root."""
    keys = {}
    if credentials:
        keys = {
            "aws_access_key_id": credentials.access_key,
            "aws_secret_access_key": credentials.secret_key,
            "aws_session_token": credentials.token,
        }
    return boto3.client(service, config=ONCE, **keys)


def send(
    method: str, url: str, body: bytes | str | None, headers: Mapping[str, str]
) -> tuple[int, dict[str, str], bytes]:
    """Sends an HTTP request without normalizing its path; other clients resolve `..`.

    Returns the status, the headers with their names in lower case, and the body.
    """
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
class Response:
    """The response to one request. `code` is "OK" or an error code.

    Only HTTP sets `status` and `headers`; only direct invoke sets `log`.
    """

    code: str
    body: Any
    status: int | None = None
    headers: dict[str, str] = field(default_factory=dict)
    log: str = ""

    @property
    def message(self) -> str:
        """The message of an error."""
        return self.body["message"]


class Stack:
    """A deployed stack: calls it by direct invoke and by HTTP, and reads its tables."""

    def __init__(self, name: str) -> None:
        described = client("cloudformation").describe_stacks(StackName=name)["Stacks"][0]
        outputs = {out["OutputKey"]: out["OutputValue"] for out in described["Outputs"]}
        self.name = name
        self.table = outputs["TableName"]
        self.ledger = outputs["LedgerName"]
        self.key_arn = outputs["KeyArn"]
        self.api_id = outputs["ApiId"]
        self.api_url = f"{os.environ['AWS_ENDPOINT_URL']}/_aws/execute-api/{self.api_id}/$default"
        self.machine = outputs["RotationStateMachineArn"]
        self.functions = {
            key.removesuffix("FunctionName").lower(): value
            for key, value in outputs.items()
            if key.endswith("FunctionName")
        }
        self.rows = boto3.resource("dynamodb", config=ONCE).Table(self.table)
        self.entries = boto3.resource("dynamodb", config=ONCE).Table(self.ledger)
        self._lambda = client("lambda")

    def invoke(self, verb: str, request: Any, credentials: Credentials | None = None) -> Response:
        """Invokes the function of an operation. `request` is JSON, or bytes to send unchanged."""
        return self.call(self.functions[verb], request, credentials)

    def call(self, function: str, request: Any, credentials: Credentials | None = None) -> Response:
        """Invokes any function, by its name."""
        payload = request if isinstance(request, bytes) else json.dumps(request).encode()
        caller = client("lambda", credentials) if credentials else self._lambda
        invocation = caller.invoke(FunctionName=function, Payload=payload, LogType="Tail")
        body = json.loads(invocation["Payload"].read())
        log = base64.b64decode(invocation.get("LogResult", "")).decode()
        if "FunctionError" in invocation:
            error = {"code": body.get("errorType"), "message": body.get("errorMessage")}
            return Response(error["code"], error, log=log)
        return Response("OK", body, log=log)

    def http(
        self,
        method: str,
        path: str,
        query: str = "",
        body: Any = None,
        headers: Mapping[str, str] | None = None,
        credentials: Credentials | Literal["root"] | None = "root",
        quote: bool = True,
    ) -> Response:
        """Sends an HTTP request to the API.

        Signs it with `credentials`: "root" means the account's root, None sends it unsigned.
        `body` is JSON, or bytes to send unchanged. `quote` says whether to escape the path.
        """
        if quote:
            path = urllib.parse.quote(path, safe="/-_.~")
        url = self.api_url + path + (f"?{query}" if query else "")
        if body is not None and not isinstance(body, bytes):
            body = json.dumps(body).encode()
        headers = {"content-type": "application/json", **(headers or {})}
        request = AWSRequest(method, url, data=body or b"", headers=headers)
        if credentials:
            if credentials == "root":
                credentials = Credentials("test", "test")
            region = os.environ["AWS_REGION"]
            SigV4Auth(credentials, "execute-api", region).add_auth(request)
        status, received, data = send(method, url, body, dict(request.headers))
        content = json.loads(data) if "json" in received.get("content-type", "") else data
        code = "OK" if status == 200 else "?"
        if isinstance(content, dict) and status != 200:
            code = content.get("code", f"HTTP {status}")
        return Response(code, content, status, received)

    def both(self, verb: str, request: dict[str, Any]) -> Iterator[tuple[str, Response]]:
        """Sends a request by direct invoke, then by HTTP. Yields (origin, response)."""
        yield "direct", self.invoke(verb, request)
        yield "http", self.by_http(verb, request)

    def by_http(self, verb: str, request: dict[str, Any], **options: Any) -> Response:
        """Sends a direct request as the equivalent HTTP request. `options` are those of `http`."""
        request = dict(request)
        method = "GET"
        resource = request.pop("list", None)
        parameter, route = ("prefix", "bundle") if "prefix" in request else ("name", "secrets")
        if resource == "report":
            parameter, route = "action", "reports"
        elif verb == "list":
            route = resource or ("versions" if "name" in request else "names")
        elif verb in ("restore", "rotate"):
            route = verb
        elif verb == "policy":
            route, method = "policies", POLICIES[request.pop("policy")]
        path = f"/{route}"
        if parameter in request:
            value = request.pop(parameter)
            path += f"/~{value}" if value.startswith("/") else f"/{value}"
        method = METHODS.get(verb, method)
        if method in ("PUT", "POST"):
            return self.http(method, path, body=request, **options)
        pairs = []
        for key, value in request.items():
            if isinstance(value, dict):
                pairs += [(f"{key}.{inner}", entry) for inner, entry in value.items()]
            elif isinstance(value, (bool, list)):
                pairs.append((key, json.dumps(value)))
            else:
                pairs.append((key, value))
        query = urllib.parse.urlencode(pairs, quote_via=urllib.parse.quote)
        return self.http(method, path, query=query, **options)

    def put(self, name: str, secret: str | None = None, **fields: Any) -> Any:
        """Puts a secret. Fails unless that succeeds."""
        if secret is not None:
            fields["secret"] = secret
        return self.done("put", name=name, **fields)

    def get(self, name: str, **fields: Any) -> Any:
        """Gets a secret. Fails unless that succeeds."""
        return self.done("get", name=name, **fields)

    def done(self, verb: str, **request: Any) -> Any:
        """Returns the body of a successful direct invoke. Fails on an error."""
        response = self.invoke(verb, request)
        assert response.code == "OK", response
        return response.body

    def patiently(self, verb: str, **request: Any) -> Any:
        """Like `done`, but retries `Unavailable`, as the state machine does."""
        for _ in range(20):
            response = self.invoke(verb, request)
            if response.code != "Unavailable":
                break
        assert response.code == "OK", response
        return response.body

    def each_page(self, verb: str, *, patient: bool = False, **request: Any) -> Iterator[Any]:
        """Yields the body of each page of a paged response. If `patient`, retries `Unavailable`."""
        call = self.patiently if patient else self.done
        following: dict[str, Any] = {}
        while True:
            page = call(verb, **request, **following)
            yield page
            if "next" not in page:
                return
            following = {"next": page["next"]}

    def pages(self, verb: str, field: str, **request: Any) -> list[Any]:
        """Returns the items under `field` of all pages. Every page must have the field."""
        return [item for page in self.each_page(verb, **request) for item in page[field]]

    def pages_of(self, verb: str, field: str, **request: Any) -> list[Any]:
        """Returns the items under `field` of all pages. A page may omit the field."""
        return [item for page in self.each_page(verb, **request) for item in page.get(field, [])]

    def history(self, name: str) -> list[Any]:
        """Returns the events of a name, newest first."""
        return self.pages("list", "events", list="history", name=name)

    def verify(self, name: str) -> dict[str, str]:
        """Verifies the history of a name. Returns the fault of each broken entry."""
        body = self.done("list", list="history", name=name, verify=True)
        assert body["whole"] == ("broken" not in body)
        return {entry["entry"]: entry["fault"] for entry in body.get("broken", [])}

    def entries_of(self, name: str, kind: str = "") -> list[Any]:
        """Returns the items that the ledger has for a name, in order of their sort keys.

        `kind` is a prefix of the sort key.
        """
        found = self._all(self.entries, name)
        return [entry for entry in found if entry["entry"].startswith(kind)]

    def versions_of(self, name: str) -> list[Any]:
        """Returns the items that the table of secrets has for a name, oldest version first."""
        return self._all(self.rows, name)

    def _all(self, table: Any, name: str) -> list[Any]:
        items: list[Any] = []
        following: dict[str, Any] = {}
        while True:
            page = table.query(
                KeyConditionExpression=Key("name").eq(name), ConsistentRead=True, **following
            )
            items += page["Items"]
            if "LastEvaluatedKey" not in page:
                return items
            following = {"ExclusiveStartKey": page["LastEvaluatedKey"]}

    def row(self, name: str, version: int = 1) -> Any:
        """Returns one item of the table of secrets."""
        key = {"name": name, "version": f"{version:019}"}
        return self.rows.get_item(Key=key, ConsistentRead=True)["Item"]

    def role(self, verb: str) -> str:
        """Returns the name of a function's role."""
        config = self._lambda.get_function_configuration(FunctionName=self.functions[verb])
        return config["Role"].split("/")[-1]

    def logs(self, verb: str | None = None) -> str:
        """Returns all log lines of one function, or those of all functions and the API."""
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
        lines: list[str] = []
        for group in groups:
            pages = logs.get_paginator("filter_log_events").paginate(logGroupName=group)
            lines += [event["message"] for page in pages for event in page["events"]]
        return "\n".join(lines)


def allow(
    action: str | list[str], resource: str | list[str] | None, effect: str = "Allow"
) -> dict[str, Any]:
    """Returns an IAM policy with one statement."""
    return {
        "Version": "2012-10-17",
        "Statement": [{"Effect": effect, "Action": action, "Resource": resource}],
    }


def user(iam: Any, user_name: str, *policies: dict[str, Any]) -> Credentials:
    """Creates an IAM user with these policies, and returns its credentials."""
    with contextlib.suppress(iam.exceptions.EntityAlreadyExistsException):
        iam.create_user(UserName=user_name)
    for number, policy in enumerate(policies):
        iam.put_user_policy(
            UserName=user_name, PolicyName=f"policy-{number}", PolicyDocument=json.dumps(policy)
        )
    key = iam.create_access_key(UserName=user_name)["AccessKey"]
    return Credentials(key["AccessKeyId"], key["SecretAccessKey"])
