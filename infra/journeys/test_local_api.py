"""The local AWS checks signatures, and the paths and limits of an HTTP API, as AWS does.

If one of these tests fails, the other journeys prove nothing.
"""

import hashlib
import io
import json
import os
import urllib.parse
import zipfile
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import pytest
from botocore.auth import S3SigV4Auth, SigV4Auth
from botocore.awsrequest import AWSRequest

from conftest import (
    ACCOUNT,
    ENDPOINT,
    REGION,
    Credentials,
    MakeCaller,
    Stack,
    allow,
    client,
    send,
    user,
)


def trust(**principal: str) -> str:
    """Returns the trust policy of a role that this principal may assume."""
    statement = {"Effect": "Allow", "Action": "sts:AssumeRole", "Principal": principal}
    return json.dumps({"Version": "2012-10-17", "Statement": [statement]})


# ---- every signature is verified ----

# A service, an operation without required parameters, and the status for a wrong signature.
# Protocols that send the operation in `x-amz-target` return 400, the others 403.
SERVICES = [
    ("cloudformation", "list_stacks", 403),
    ("dynamodb", "list_tables", 400),
    ("events", "list_rules", 400),
    ("iam", "list_users", 403),
    ("kms", "list_keys", 400),
    ("lambda", "list_functions", 403),
    ("logs", "describe_log_groups", 400),
    ("s3", "list_buckets", 403),
    ("scheduler", "list_schedules", 403),
    ("stepfunctions", "list_state_machines", 400),
    ("sts", "get_caller_identity", 403),
]


@pytest.fixture(scope="module")
def callers(iam: Any) -> Iterator[dict[str, Credentials]]:
    """The account's root, a user and a role's session, each with all permissions."""
    everything = allow("*", "*")
    role = f"session-{os.getpid()}"
    root = trust(AWS=f"arn:aws:iam::{ACCOUNT}:root")
    arn = iam.create_role(RoleName=role, AssumeRolePolicyDocument=root)["Role"]["Arn"]
    iam.put_role_policy(RoleName=role, PolicyName="all", PolicyDocument=json.dumps(everything))
    session = client("sts").assume_role(RoleArn=arn, RoleSessionName="session")["Credentials"]
    yield {
        "root": Credentials("test", "test"),
        "user": user(iam, f"verified-{os.getpid()}", everything),
        "session": Credentials(
            session["AccessKeyId"], session["SecretAccessKey"], session["SessionToken"]
        ),
    }
    iam.delete_role_policy(RoleName=role, PolicyName="all")
    iam.delete_role(RoleName=role)


def with_wrong_secret_key(credentials: Credentials) -> Credentials:
    """Returns the same credentials with another secret access key."""
    return Credentials(credentials.access_key, "wrong", credentials.token)


def refusal(credentials: Credentials, service: str, operation: str) -> tuple[str, int] | None:
    """Returns the error code and the status of a call, or None if it succeeds."""
    caller = client(service, credentials)
    try:
        getattr(caller, operation)()
    except caller.exceptions.ClientError as error:
        return error.response["Error"]["Code"], error.response["ResponseMetadata"]["HTTPStatusCode"]
    return None


@pytest.mark.parametrize("caller_kind", ["root", "user", "session"])
@pytest.mark.parametrize(("service", "operation", "status"), SERVICES)
def test_every_service_refuses_a_wrong_secret_key(
    callers: dict[str, Credentials], caller_kind: str, service: str, operation: str, status: int
) -> None:
    right = callers[caller_kind]
    assert refusal(right, service, operation) is None
    refused = refusal(with_wrong_secret_key(right), service, operation)
    assert refused in (("InvalidSignatureException", status), ("SignatureDoesNotMatch", status))


def test_a_session_needs_its_own_session_token(callers: dict[str, Credentials]) -> None:
    session = callers["session"]
    for token in (None, "another"):
        wrong = Credentials(session.access_key, session.secret_key, token)
        refused = refusal(wrong, "dynamodb", "list_tables")
        assert refused and refused[0] == "UnrecognizedClientException"


@pytest.mark.parametrize("caller_kind", ["root", "user", "session"])
def test_the_api_refuses_a_wrong_secret_key(
    stack: Stack, callers: dict[str, Credentials], name: str, caller_kind: str
) -> None:
    stack.put(name, "s")
    right = callers[caller_kind]
    assert stack.http("GET", f"/secrets/{name}", credentials=right).status == 200
    wrong = stack.http("GET", f"/secrets/{name}", credentials=with_wrong_secret_key(right))
    assert (wrong.status, wrong.body) == (403, {"message": "Forbidden"})


def test_the_api_refuses_unknown_keys_and_unsigned_requests(stack: Stack, name: str) -> None:
    for credentials in (None, Credentials("AKIAUNKNOWN000000000", "secret")):
        response = stack.http("GET", f"/secrets/{name}", credentials=credentials)
        assert (response.status, response.body) == (403, {"message": "Forbidden"})


@pytest.mark.parametrize("caller_kind", ["root", "user"])
def test_a_signature_covers_body_and_service(
    stack: Stack, callers: dict[str, Credentials], name: str, caller_kind: str
) -> None:
    url = f"{ENDPOINT}/_aws/execute-api/{stack.api_id}/$default/secrets/{name}"
    body = b'{"secret": "s"}'

    def put(sent: bytes, service: str = "execute-api", **headers: str) -> int:
        headers["content-type"] = "application/json"
        request = AWSRequest("PUT", url, data=body, headers=headers)
        SigV4Auth(callers[caller_kind], service, REGION).add_auth(request)
        return send("PUT", url, sent, dict(request.headers))[0]

    # Some clients send the hash of the body, which must then match the body.
    hashed = {"x-amz-content-sha256": hashlib.sha256(body).hexdigest()}
    assert put(body) == 200
    assert put(body, **hashed) == 200
    assert put(b'{"secret": "t"}') == 403
    assert put(b'{"secret": "t"}', **hashed) == 403
    assert put(body, service="lambda") == 403


# How clients sign an upload: its hash, nothing of the body, or chunks that a checksum follows.
UPLOADS: dict[str | None, bytes] = {
    None: b"hello",
    "UNSIGNED-PAYLOAD": b"hello",
    "STREAMING-UNSIGNED-PAYLOAD-TRAILER": b"5\r\nhello\r\n"
    b"0\r\nx-amz-checksum-crc32:NhCmhg==\r\n\r\n",
}


class Signed(S3SigV4Auth):
    """Signs an upload in one of these forms."""

    def __init__(self, credentials: Credentials, form: str | None) -> None:
        super().__init__(credentials, "s3", REGION)
        self.form = form

    def payload(self, request: AWSRequest) -> str:
        return self.form or super().payload(request)


@pytest.fixture(scope="module")
def bucket() -> Iterator[str]:
    s3, name = client("s3"), f"uploads-{os.getpid()}"
    s3.create_bucket(Bucket=name)
    yield name
    s3.delete_object(Bucket=name, Key="a b")
    s3.delete_bucket(Bucket=name)


@pytest.mark.parametrize("caller_kind", ["root", "user", "session"])
@pytest.mark.parametrize("form", UPLOADS)
def test_s3_verifies_uploads_signed_in_every_form(
    callers: dict[str, Credentials], bucket: str, caller_kind: str, form: str | None
) -> None:
    """`sam deploy` uses these forms."""
    url, right = f"{ENDPOINT}/{bucket}/a%20b", callers[caller_kind]
    headers = {}
    if form and form.startswith("STREAMING"):
        headers = {
            "content-encoding": "aws-chunked",
            "x-amz-decoded-content-length": "5",
            "x-amz-trailer": "x-amz-checksum-crc32",
        }

    def put(credentials: Credentials, sent: bytes) -> int:
        request = AWSRequest("PUT", url, data=UPLOADS[form], headers=headers)
        Signed(credentials, form).add_auth(request)
        return send("PUT", url, sent, dict(request.headers))[0]

    assert put(right, UPLOADS[form]) == 200
    assert client("s3").get_object(Bucket=bucket, Key="a b")["Body"].read() == b"hello"
    assert put(with_wrong_secret_key(right), UPLOADS[form]) == 403
    if form is None:
        assert put(right, b"other") == 403


def test_s3_verifies_presigned_urls(callers: dict[str, Credentials], bucket: str) -> None:
    client("s3").put_object(Bucket=bucket, Key="a b", Body=b"hello")
    for right in callers.values():
        for credentials, status in ((right, 200), (with_wrong_secret_key(right), 403)):
            url = client("s3", credentials).generate_presigned_url(
                "get_object", Params={"Bucket": bucket, "Key": "a b"}
            )
            assert send("GET", url, None, {})[0] == status


# ---- an HTTP API: paths and limits ----

ECHO = """
import json

def handler(event, context):
    return {"statusCode": 200, "body": json.dumps(event)}
"""


@dataclass
class Echo:
    """An API that returns the request that its function received."""

    prefix: str

    def __call__(self, path: str, headers: dict[str, str] | None = None) -> tuple[int, Any]:
        status, _, body = send("GET", f"{ENDPOINT}{self.prefix}{path}", None, headers or {})
        return status, json.loads(body)


@pytest.fixture(scope="module")
def echo(iam: Any) -> Iterator[Echo]:
    """Deploys an API that returns the request that its function received, without authorization.

    `echo(path, headers)` returns the status, and the function's request or the error.
    """
    name = f"echo-{os.getpid()}"
    functions, apis = client("lambda"), client("apigatewayv2")
    service = trust(Service="lambda.amazonaws.com")
    role = iam.create_role(RoleName=name, AssumeRolePolicyDocument=service)["Role"]["Arn"]
    code = io.BytesIO()
    with zipfile.ZipFile(code, "w") as archive:
        archive.writestr("echo.py", ECHO)
    function = functions.create_function(
        FunctionName=name,
        Runtime="python3.11",
        Role=role,
        Handler="echo.handler",
        Code={"ZipFile": code.getvalue()},
        Timeout=30,
    )["FunctionArn"]
    api = apis.create_api(Name=name, ProtocolType="HTTP")["ApiId"]
    integration = apis.create_integration(
        ApiId=api,
        IntegrationType="AWS_PROXY",
        IntegrationUri=function,
        PayloadFormatVersion="2.0",
    )["IntegrationId"]
    apis.create_route(ApiId=api, RouteKey="GET /echo/{path+}", Target=f"integrations/{integration}")
    apis.create_stage(ApiId=api, StageName="$default", AutoDeploy=True)
    yield Echo(f"/_aws/execute-api/{api}")
    apis.delete_api(ApiId=api)
    functions.delete_function(FunctionName=name)
    iam.delete_role(RoleName=name)


# Recorded from AWS: github.com/hotsock/voker, pull request 8, ingress-paths.json.
RECORDED = {
    "plain": "plain",
    "space%20value": "space value",
    "question%3Fvalue": "question",
    "hash%23value": "hash#value",
    "slash%2Fvalue": "slash/value",
    "unicode-%CE%BB-%E4%B8%96%E7%95%8C": "unicode-λ-世界",
    "literal%252Fvalue": "literal/value",
    "literal%253Fvalue": "literal?value",
    "literal%2525value": "literal%value",
}


@pytest.mark.parametrize("sent", RECORDED)
def test_an_http_api_decodes_a_path_twice(echo: Echo, sent: str) -> None:
    query = "marker=1&value=a%3Fb%25c%23d"
    status, request = echo(f"/echo/{sent}?{query}")
    assert status == 200
    assert request["rawPath"] == f"/echo/{RECORDED[sent]}"
    assert request["requestContext"]["http"]["path"] == request["rawPath"]
    assert request["pathParameters"] == {"path": RECORDED[sent]}
    assert request["rawQueryString"] == query


@pytest.mark.parametrize("sent", ["percent%25done", "a%", "a%zz", "a%25", "%25%32", "a%252"])
def test_an_http_api_refuses_a_stray_percent_sign(echo: Echo, sent: str) -> None:
    # `a%252` becomes `a%2`, which cannot be decoded again.
    assert echo(f"/echo/{sent}") == (400, {"message": "Bad Request"})


def test_an_http_api_keeps_doubled_slashes(echo: Echo) -> None:
    for sent in ("a//b", "a%2F%2Fb", "a/%252Fb"):
        assert echo(f"/echo/{sent}")[1]["rawPath"] == "/echo/a//b"


def test_iam_evaluates_a_path_decoded_once(stack: Stack, caller: MakeCaller, name: str) -> None:
    """This is a choice of the local AWS. AWS does not document which path it evaluates."""
    stack.put(f"{name}/b", "s")
    reader = caller(f"GET/secrets/{name}/*")
    path = urllib.parse.quote(f"/secrets/{name}")
    for sent, status in (("/b", 200), ("%2Fb", 200), ("%252Fb", 403)):
        response = stack.http("GET", f"{path}{sent}", credentials=reader, quote=False)
        assert response.status == status, sent


def test_an_http_api_accepts_10240_bytes_of_request_line_and_headers(echo: Echo) -> None:
    address = ENDPOINT.removeprefix("http://")
    fixed = {"Host": address, "Accept-Encoding": "identity", "x-fill": ""}

    def send_bytes(size: int, path: str = "/echo/a") -> tuple[int, Any]:
        lines = [
            f"GET {echo.prefix}{path} HTTP/1.1",
            *(f"{header}: {value}" for header, value in fixed.items()),
        ]
        fill = "x" * (size - sum(len(line) for line in lines))
        return echo(path, {**fixed, "x-fill": fill})

    assert send_bytes(10_240)[0] == 200
    refused = 431, {"message": "Request Header Fields Too Large"}
    assert send_bytes(10_241) == refused
    # The query counts, too.
    query = "/echo/a?q=" + "x" * 9_000
    assert send_bytes(10_240, query)[0] == 200
    assert send_bytes(10_241, query) == refused
