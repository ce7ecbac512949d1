"""Callers and requests as AWS checks them: every signature, an HTTP API's paths and its limits. If
one of these fails, other journeys prove nothing."""

import hashlib
import io
import json
import os
import urllib.parse
import zipfile

import pytest
from botocore.auth import S3SigV4Auth, SigV4Auth
from botocore.awsrequest import AWSRequest
from botocore.credentials import Credentials
from conftest import ACCOUNT, ENDPOINT, REGION, allow, client, send, user


def trust(**principal):
    """The trust policy of a role that this principal may assume."""
    statement = {"Effect": "Allow", "Action": "sts:AssumeRole", "Principal": principal}
    return json.dumps({"Version": "2012-10-17", "Statement": [statement]})


# ---- every signature is verified ----

# A service, a call that needs no parameters, and the status of a wrong signature: protocols that
# name their operation in `x-amz-target` answer with 400, the others with 403.
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
def callers(iam):
    """The account's root, a user and a role's session. All of them may do everything."""
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


def with_wrong_secret(credentials):
    return Credentials(credentials.access_key, "wrong", credentials.token)


def refusal(credentials, service, operation):
    """The error code and status of a call, or None if it is answered."""
    there = client(service, credentials)
    try:
        getattr(there, operation)()
    except there.exceptions.ClientError as error:
        return error.response["Error"]["Code"], error.response["ResponseMetadata"]["HTTPStatusCode"]
    return None


@pytest.mark.parametrize("caller_of", ["root", "user", "session"])
@pytest.mark.parametrize(("service", "operation", "status"), SERVICES)
def test_every_service_refuses_a_wrong_secret(callers, caller_of, service, operation, status):
    right = callers[caller_of]
    assert refusal(right, service, operation) is None
    code, got = refusal(with_wrong_secret(right), service, operation)
    assert code in ("InvalidSignatureException", "SignatureDoesNotMatch")
    assert got == status


def test_a_session_needs_its_own_token(callers):
    session = callers["session"]
    for token in (None, "another"):
        wrong = Credentials(session.access_key, session.secret_key, token)
        code, _ = refusal(wrong, "dynamodb", "list_tables")
        assert code == "UnrecognizedClientException"


@pytest.mark.parametrize("caller_of", ["root", "user", "session"])
def test_the_api_refuses_a_wrong_secret(stack, callers, name, caller_of):
    stack.put(name, "s")
    right = callers[caller_of]
    assert stack.http("GET", f"/secrets/{name}", credentials=right).status == 200
    wrong = stack.http("GET", f"/secrets/{name}", credentials=with_wrong_secret(right))
    assert (wrong.status, wrong.body) == (403, {"message": "Forbidden"})


def test_the_api_refuses_unknown_keys_and_unsigned_requests(stack, name):
    for credentials in (None, Credentials("AKIAUNKNOWN000000000", "secret")):
        answer = stack.http("GET", f"/secrets/{name}", credentials=credentials)
        assert (answer.status, answer.body) == (403, {"message": "Forbidden"})


@pytest.mark.parametrize("caller_of", ["root", "user"])
def test_a_signature_covers_body_and_service(stack, callers, name, caller_of):
    url = f"{ENDPOINT}/_aws/execute-api/{stack.api_id}/$default/secrets/{name}"
    body = b'{"secret": "s"}'

    def put(sent, service="execute-api", **headers):
        headers["content-type"] = "application/json"
        request = AWSRequest("PUT", url, data=body, headers=headers)
        SigV4Auth(callers[caller_of], service, REGION).add_auth(request)
        return send("PUT", url, sent, dict(request.headers))[0]

    # Some clients send the hash of the body, too. Then it must be the body's.
    hashed = {"x-amz-content-sha256": hashlib.sha256(body).hexdigest()}
    assert put(body) == 200
    assert put(body, **hashed) == 200
    assert put(b'{"secret": "t"}') == 403
    assert put(b'{"secret": "t"}', **hashed) == 403
    assert put(body, service="lambda") == 403


# How clients sign an upload: its hash, nothing of the body, or chunks with a checksum behind them.
UPLOADS = {
    None: b"hello",
    "UNSIGNED-PAYLOAD": b"hello",
    "STREAMING-UNSIGNED-PAYLOAD-TRAILER": b"5\r\nhello\r\n"
    b"0\r\nx-amz-checksum-crc32:NhCmhg==\r\n\r\n",
}


class Signed(S3SigV4Auth):
    """A signer of one of these forms."""

    def __init__(self, credentials, form):
        super().__init__(credentials, "s3", REGION)
        self.form = form

    def payload(self, request):
        return self.form or super().payload(request)


@pytest.fixture(scope="module")
def bucket():
    s3, name = client("s3"), f"uploads-{os.getpid()}"
    s3.create_bucket(Bucket=name)
    yield name
    s3.delete_object(Bucket=name, Key="a b")
    s3.delete_bucket(Bucket=name)


@pytest.mark.parametrize("caller_of", ["root", "user", "session"])
@pytest.mark.parametrize("form", UPLOADS)
def test_s3_verifies_uploads_signed_in_every_form(callers, bucket, caller_of, form):
    """`sam deploy` depends on these."""
    url, right = f"{ENDPOINT}/{bucket}/a%20b", callers[caller_of]
    headers = {}
    if form and form.startswith("STREAMING"):
        headers = {
            "content-encoding": "aws-chunked",
            "x-amz-decoded-content-length": "5",
            "x-amz-trailer": "x-amz-checksum-crc32",
        }

    def put(credentials, sent):
        request = AWSRequest("PUT", url, data=UPLOADS[form], headers=headers)
        Signed(credentials, form).add_auth(request)
        return send("PUT", url, sent, dict(request.headers))[0]

    assert put(right, UPLOADS[form]) == 200
    assert client("s3").get_object(Bucket=bucket, Key="a b")["Body"].read() == b"hello"
    assert put(with_wrong_secret(right), UPLOADS[form]) == 403
    if form is None:
        assert put(right, b"other") == 403


def test_s3_verifies_presigned_urls(callers, bucket):
    client("s3").put_object(Bucket=bucket, Key="a b", Body=b"hello")
    for right in callers.values():
        for credentials, status in ((right, 200), (with_wrong_secret(right), 403)):
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


@pytest.fixture(scope="module")
def echo(iam):
    """An API of its own that returns the event its function received. It needs no signature:
    `echo(path, headers)` is the status, and the event or the error."""
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
    apis.create_route(
        ApiId=api, RouteKey="GET /echo/{path+}", Target=f"integrations/{integration}"
    )
    apis.create_stage(ApiId=api, StageName="$default", AutoDeploy=True)

    def get(path, headers=None):
        url = f"{ENDPOINT}/_aws/execute-api/{api}{path}"
        status, _, body = send("GET", url, None, headers or {})
        return status, json.loads(body)

    get.prefix = f"/_aws/execute-api/{api}"
    yield get
    apis.delete_api(ApiId=api)
    functions.delete_function(FunctionName=name)
    iam.delete_role(RoleName=name)


# As recorded from AWS: github.com/hotsock/voker, pull request 8, ingress-paths.json.
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
def test_an_http_api_decodes_a_path_twice(echo, sent):
    query = "marker=1&value=a%3Fb%25c%23d"
    status, event = echo(f"/echo/{sent}?{query}")
    assert status == 200
    assert event["rawPath"] == f"/echo/{RECORDED[sent]}"
    assert event["requestContext"]["http"]["path"] == event["rawPath"]
    assert event["pathParameters"] == {"path": RECORDED[sent]}
    assert event["rawQueryString"] == query


@pytest.mark.parametrize("sent", ["percent%25done", "a%", "a%zz", "a%25", "%25%32", "a%252"])
def test_an_http_api_refuses_a_stray_percent_sign(echo, sent):
    # `a%252` becomes `a%2`, which the second pass refuses.
    assert echo(f"/echo/{sent}") == (400, {"message": "Bad Request"})


def test_an_http_api_keeps_doubled_slashes(echo):
    for sent in ("a//b", "a%2F%2Fb", "a/%252Fb"):
        assert echo(f"/echo/{sent}")[1]["rawPath"] == "/echo/a//b"


def test_iam_evaluates_a_path_decoded_once(stack, caller, name):
    """A choice of the local AWS: AWS does not document what it evaluates."""
    stack.put(f"{name}/b", "s")
    reader = caller(f"GET/secrets/{name}/*")
    path = urllib.parse.quote(f"/secrets/{name}")
    for sent, status in (("/b", 200), ("%2Fb", 200), ("%252Fb", 403)):
        answer = stack.http("GET", f"{path}{sent}", credentials=reader, quote=False)
        assert answer.status == status, sent


def test_an_http_api_takes_10240_bytes_of_request_line_and_headers(echo):
    address = ENDPOINT.removeprefix("http://")
    fixed = {"Host": address, "Accept-Encoding": "identity", "x-fill": ""}

    def ask(size, path="/echo/a"):
        lines = [f"GET {echo.prefix}{path} HTTP/1.1", *(f"{k}: {v}" for k, v in fixed.items())]
        fill = "x" * (size - sum(len(line) for line in lines))
        return echo(path, {**fixed, "x-fill": fill})

    assert ask(10_240)[0] == 200
    refused = 431, {"message": "Request Header Fields Too Large"}
    assert ask(10_241) == refused
    # A long query counts as a long header does.
    query = "/echo/a?q=" + "x" * 9_000
    assert ask(10_240, query)[0] == 200
    assert ask(10_241, query) == refused
