"""API Gateway: the routes, paths and limits of an HTTP API.

Imports the routes of the OpenAPI body that SAM makes of HttpApi events. Decodes paths twice, limits
the size of requests, and returns the same error to every denied caller.
"""

import json
import re
from http import HTTPStatus
from typing import Any
from urllib.parse import unquote_to_bytes

import ministack.app
from ministack.services import apigateway
from ministack.services.cloudformation import provisioners

from .request import Fields, Headers, Response

API = "AWS::ApiGatewayV2::Api"
ANY = "x-amazon-apigateway-any-method"

# AWS, HTTP API quotas: "Total combined size of request line and header values: 10240 bytes".
MAX_HEAD = 10_240
STRAY = re.compile(rb"%(?![0-9A-Fa-f]{2})")


class InvalidPath(ValueError):
    """A path with a `%` that is not followed by two hex digits."""


def unescape(path: bytes) -> bytes:
    """Decodes a path once. Raises `InvalidPath` for a stray `%`."""
    if STRAY.search(path):
        raise InvalidPath
    return unquote_to_bytes(path)


def decode_path(raw_path: str) -> str:
    """Returns the path that a function receives as `rawPath`.

    Recorded from the service with payload format 2.0 (hotsock/voker on GitHub, pull request 8,
    vokerhttp/testdata/ingress-paths.json): AWS decodes twice. A `?` from the first pass ends the
    path, one from the second does not. A stray `%` in the first pass is refused, one in the second
    is passed on. Not recorded, so left to ministack: path parameters are taken from this path, and
    bytes that are not UTF-8 become U+FFFD.
    """
    once = unescape(raw_path.encode()).split(b"?")[0]
    return unescape(once).decode(errors="replace")


def head_size(method: str, target: str, headers: Headers) -> int:
    """Returns the size of the request line and of all headers, in bytes.

    AWS documents header values only. Names are counted too, so that AWS accepts whatever is
    accepted here. The path is longer here (`/_aws/execute-api/...`), but `Host` is longer on AWS.
    """
    lines = [f"{name}: {value}" for name, value in headers.items()]
    return sum(len(line.encode()) for line in (f"{method} {target} HTTP/1.1", *lines))


def refusal(status: int) -> Response:
    """Returns an error response of the API itself."""
    body = json.dumps({"message": HTTPStatus(status).phrase}).encode()
    return status, {"Content-Type": "application/json"}, body


def malformed(method: str, target: str, headers: Headers) -> Response | None:
    """Returns the error for a request that is refused whoever sends it, or None.

    AWS's quotas do not say which status a request that is too large gets; 431 is from a public
    report (backbencher.dev, 431 from API Gateway). The 400 was recorded with the paths above.
    """
    if head_size(method, target, headers) > MAX_HEAD:
        return refusal(431)
    try:
        decode_path(target.split("?")[0])
    except InvalidPath:
        return refusal(400)
    return None


def is_http_api(api_id: str) -> bool:
    return apigateway.find_api_scope(api_id) is not None


def import_body(api_id: str, body: Fields | None) -> None:
    """Replaces the routes of an API with those of an OpenAPI document."""
    body = body or {}
    apigateway._routes[api_id], apigateway._integrations[api_id] = {}, {}
    schemes = (body.get("components") or {}).get("securitySchemes") or {}
    signed = {
        name
        for name, scheme in schemes.items()
        if scheme.get("x-amazon-apigateway-authtype") == "awsSigv4"
    }
    for path, methods in (body.get("paths") or {}).items():
        for method, operation in methods.items():
            integration = isinstance(operation, dict) and operation.get(
                "x-amazon-apigateway-integration"
            )
            if not integration:
                continue
            made = apigateway._create_integration(
                api_id,
                {
                    "integrationType": integration.get("type", "aws_proxy").upper(),
                    "integrationUri": integration.get("uri", ""),
                    "payloadFormatVersion": integration.get("payloadFormatVersion", "2.0"),
                },
            )
            verb = "ANY" if method == ANY else method.upper()
            security = operation.get("security", body.get("security", []))
            iam = any(name in signed for requirement in security for name in requirement)
            apigateway._create_route(
                api_id,
                {
                    "routeKey": path if path == "$default" else f"{verb} {path}",
                    "target": "integrations/" + json.loads(made[2])["integrationId"],
                    "authorizationType": "AWS_IAM" if iam else "NONE",
                },
            )


def install() -> None:
    create, update = provisioners._apigw_v2_api_create, provisioners._apigw_v2_api_update
    handle, enforce = ministack.app._handle_execute_api_request, ministack.app._enforce_execute_api

    def api_create(logical_id: str, properties: Fields, stack_name: str) -> Any:
        api_id, attributes = create(logical_id, properties, stack_name)
        if properties.get("Body"):
            import_body(api_id, properties["Body"])
        return api_id, attributes

    def api_update(
        physical_id: str, old: Fields, new: Fields, stack_name: str, logical_id: str | None = None
    ) -> Any:
        api_id, attributes = update(physical_id, old, new, stack_name, logical_id)
        if new.get("Body"):
            import_body(api_id, new["Body"])
        return api_id, attributes

    for table in vars(provisioners).values():
        if isinstance(table, dict) and "create" in (table.get(API) or {}):
            table[API].update(create=api_create, update=api_update)

    async def handle_request(
        host: str,
        path: str,
        method: str,
        headers: Headers,
        body: bytes,
        query: Any,
        raw_path: str | None = None,
        raw_query_string: str | None = None,
    ) -> Any:
        parsed = ministack.app._parse_execute_api_url(host, path)
        if parsed and is_http_api(parsed[0]):
            target = (raw_path or path) + (f"?{raw_query_string}" if raw_query_string else "")
            refused = malformed(method, target, headers)
            if refused:
                return refused
        return await handle(host, path, method, headers, body, query, raw_path, raw_query_string)

    def enforce_request(api_id: str, *arguments: Any, **named: Any) -> Any:
        # AWS does not document which path IAM evaluates. ministack takes the path decoded once, so
        # a policy and a function can see different paths, as may happen on AWS.
        denied = enforce(api_id, *arguments, **named)
        if denied and is_http_api(api_id):
            return refusal(403)
        return denied

    ministack.app._handle_execute_api_request = handle_request
    ministack.app._enforce_execute_api = enforce_request
    apigateway.decode_http_api_path = decode_path
