"""docs/openapi.yaml and the deployed API have the same routes, requests, responses and errors."""

import datetime
import json
import os
import re
import subprocess
from collections.abc import Iterator
from typing import Any
from urllib.parse import quote

import pytest
import yaml

from conftest import ROOT, TOOLS, Stack, client

DOCUMENT = ROOT / "docs/openapi.yaml"
EVENTS = ROOT / "events"

# The sample requests by HTTP, in an order in which all of them succeed.
SAMPLES = (
    "put-http",
    "put-bundle-http",
    "policy-http",
    "get-http",
    "get-bundle-http",
    "list-http",
    "list-versions-http",
    "list-history-http",
    "list-report-http",
    "rotate-http",
    "policy-cancel-http",
    "delete-http",
    "restore-http",
)
# What tells one direct request of a function from another; by HTTP, the route does.
ROUTING = ("list", "name", "policy", "prefix")


@pytest.fixture(scope="module")
def document() -> Any:
    return yaml.safe_load(DOCUMENT.read_text())


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Any:
    """A working directory, because hypothesis writes to it."""
    return tmp_path_factory.mktemp("openapi")


def openapi(folder: Any, *arguments: str, stdin: str = "") -> Any:
    """Runs a command of infra/openapi and returns its output."""
    done = subprocess.run(
        [TOOLS / "openapi/bin/python", "-m", "openapi", arguments[0], DOCUMENT, *arguments[1:]],
        cwd=folder,
        env={**os.environ, "PYTHONPATH": str(ROOT / "infra"), "PYTHONDONTWRITEBYTECODE": "1"},
        input=stdin,
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


@pytest.fixture(scope="module")
def prefix(stack: Stack) -> Iterator[str]:
    """A prefix with a secret for each operation, `PREFIX/OPERATION`. Removed after the tests."""
    prefix = f"openapi/{os.getpid()}"
    alone = ["get", "delete", "restore", "listVersions", "history", "rotate"]
    alone += ["putPolicy", "getPolicy", "cancelPolicy"]
    names = [f"{prefix}/{operation}" for operation in alone]
    for name in [*names, f"{prefix}/getMany/db", f"{prefix}/listNames/db"]:
        stack.put(name, "s")
    # A second version, so that the first is AWSPREVIOUS.
    stack.put(f"{prefix}/get", "t")
    stack.done("delete", name=f"{prefix}/restore")
    for operation in ("rotate", "getPolicy", "cancelPolicy"):
        stack.done("policy", policy="put", name=f"{prefix}/{operation}", days=30)
    yield prefix
    listed = stack.pages("list", "secrets", prefix=prefix)
    for name in {*names, *(secret["name"] for secret in listed)}:
        response = stack.invoke("delete", {"name": name, "force": True})
        assert response.code in ("OK", "NotFound"), response


@pytest.fixture(scope="module")
def renewed(stack: Stack) -> None:
    """An empty run of renew, so that there is a report. A real run would renew other secrets."""
    execution = f"arn:aws:states:us-east-1:000000000000:execution:openapi:{os.getpid()}"
    step = {"action": "renew", "execution": execution}
    now = datetime.datetime.now(datetime.UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
    asked = {"action": "renew", "dry_run": True}
    stack.done("renew", **step, step="begin", started_at=now, input=asked)
    stack.done("renew", **step, step="end")


def exchanged(stack: Stack, request: dict[str, Any]) -> dict[str, Any]:
    """Sends a request, and returns it with its response."""
    query = "&".join(
        f"{quote(name, safe='', errors='replace')}={quote(value, safe='', errors='replace')}"
        for name, value in request["query"]
    )
    body = None
    if "raw" in request:
        body = request["raw"].encode()
    elif "body" in request:
        body = json.dumps(request["body"]).encode()
    response = stack.http(request["method"], request["path"], query, body)
    content = response.body
    if isinstance(content, bytes):
        content = content.decode(errors="replace")
    received = {"status": response.status, "headers": response.headers, "body": content}
    return {**request, "response": received}


@pytest.fixture(scope="module")
def exchanges(stack: Stack, prefix: str, renewed: None, folder: Any) -> list[dict[str, Any]]:
    """Requests to every operation that the document allows and does not allow; the responses."""
    requests = openapi(folder, "requests", prefix)
    return [exchanged(stack, request) for request in requests]


def operations(document: Any) -> dict[str, Any]:
    """Returns the operations of the document by route."""
    return {
        f"{method.upper()} {path}": operation
        for path, item in document["paths"].items()
        for method, operation in item.items()
        if method != "parameters"
    }


def sample(name: str) -> Any:
    return json.loads((EVENTS / f"{name}.json").read_text())


def sample_request(document: Any, name: str, prefix: str) -> dict[str, Any]:
    """Returns a sample request by HTTP, with its names moved under the prefix."""
    event = sample(name)
    method, route = event["routeKey"].split(" ")
    path = event["rawPath"]
    if "+}" in route:
        path = re.sub("^(/[a-z]+)/", rf"\1/{prefix}/", path)
    request = {
        "operation": operations(document)[event["routeKey"]]["operationId"],
        "method": method,
        "path": path,
        "query": list(event.get("queryStringParameters", {}).items()),
        "about": name,
        "expected": "accepted",
    }
    if "body" in event:
        body = json.loads(event["body"])
        if "secrets" in body:
            body["secrets"] = {f"{prefix}/{key}": value for key, value in body["secrets"].items()}
        request["body"] = body
    return request


# ---- the document ----


def test_the_document_is_valid_openapi() -> None:
    validator = TOOLS / "openapi/bin/openapi-spec-validator"
    done = subprocess.run([validator, DOCUMENT], capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    assert yaml.safe_load(DOCUMENT.read_text())["openapi"].startswith("3.1.")


def test_the_examples_of_the_document_are_what_its_schemas_allow(folder: Any) -> None:
    assert openapi(folder, "examples") == []


def test_the_document_has_the_routes_of_the_deployed_api(document: Any, stack: Stack) -> None:
    pages = client("apigatewayv2").get_paginator("get_routes").paginate(ApiId=stack.api_id)
    routes = {route["RouteKey"]: route for page in pages for route in page["Items"]}
    assert set(operations(document)) == set(routes)
    # All of them are signed.
    assert {route["AuthorizationType"] for route in routes.values()} == {"AWS_IAM"}
    scheme = document["components"]["securitySchemes"]["sigv4"]
    assert scheme["x-amazon-apigateway-authtype"] == "awsSigv4"
    assert document["security"] == [{"sigv4": []}]
    assert not any("security" in operation for operation in operations(document).values())


def test_the_document_has_the_error_codes_of_the_crate(document: Any) -> None:
    source = (ROOT / "shared/src/error.rs").read_text()
    codes = {(status, code) for status, code in re.findall(r'\((\d{3}), "(\w+)"\)', source)}
    responses = document["components"]["responses"]
    documented = set()
    for operation in operations(document).values():
        for status, reference in operation["responses"].items():
            if "$ref" in reference:
                response = responses[reference["$ref"].rpartition("/")[2]]
                documented |= {(status, code) for code in codes_of(response)}
    assert documented == codes
    assert set(document["components"]["schemas"]["Error"]["properties"]["code"]["enum"]) == {
        code for _, code in codes
    }


def codes_of(response: Any) -> list[str]:
    """Returns the error codes of a response of the document."""
    schema = response["content"]["application/json"]["schema"]
    found: list[str] = []
    for branch in [schema, *schema.get("anyOf", [])]:
        code = branch.get("properties", {}).get("code", {})
        found += code.get("enum", [])
        found += [code["const"]] if "const" in code else []
    return found


def test_the_examples_of_the_document_are_the_sample_requests(document: Any) -> None:
    samples = {path.stem for path in EVENTS.glob("*.json")}
    used = set()
    for operation in operations(document).values():
        content = operation.get("requestBody", {}).get("content", {}).get("application/json", {})
        for name, example in content.get("examples", {}).items():
            if name in samples:
                event = sample(name)
                direct = {key: value for key, value in event.items() if key not in ROUTING}
                body = json.loads(event["body"]) if "body" in event else direct
                assert example["value"] == body, name
                used.add(name)
    assert {name for name in samples if "body" in sample(name)} <= used


# ---- the deployed API ----


def test_the_sample_requests_succeed_as_the_document_says(
    document: Any, stack: Stack, prefix: str, renewed: None, folder: Any
) -> None:
    assert set(SAMPLES) == {path.stem for path in EVENTS.glob("*-http.json")}
    requests = [sample_request(document, name, f"{prefix}/samples") for name in SAMPLES]
    exchanges = [exchanged(stack, request) for request in requests]
    statuses = {each["about"]: each["response"]["status"] for each in exchanges}
    assert statuses == dict.fromkeys(SAMPLES, 200)
    differences = openapi(folder, "responses", stdin=json.dumps(exchanges))
    assert not differences, "\n".join(differences)


def test_the_api_and_the_document_allow_the_same_requests(
    exchanges: list[dict[str, Any]], folder: Any
) -> None:
    """Also that each response is documented: its status, headers, media type and body."""
    differences = openapi(folder, "responses", stdin=json.dumps(exchanges))
    assert not differences, "\n".join([f"{len(differences)}:", *differences[:50]])


def test_the_requests_reach_every_operation(document: Any, exchanges: list[dict[str, Any]]) -> None:
    succeeded = {each["operation"] for each in exchanges if each["response"]["status"] == 200}
    known = {operation["operationId"] for operation in operations(document).values()}
    # Whether all secrets can be read depends on what other tests have left in the table.
    assert succeeded | {"getAll"} == known
