"""An HTTP API as AWS serves it: routes from its OpenAPI body (which is what SAM's HttpApi events
become), paths decoded twice, requests limited in size, and one answer to every refused caller."""

import json
import re
from http import HTTPStatus
from urllib.parse import unquote_to_bytes

import ministack.app
from ministack.services import apigateway
from ministack.services.cloudformation import provisioners

API = "AWS::ApiGatewayV2::Api"
ANY = "x-amazon-apigateway-any-method"

# AWS, HTTP API quotas: "Total combined size of request line and header values: 10240 bytes".
MAX_HEAD = 10_240
STRAY = re.compile(rb"%(?![0-9A-Fa-f]{2})")


class InvalidPath(ValueError):
    """A path with a `%` that is not followed by two hex digits."""


def unescape(path):
    if STRAY.search(path):
        raise InvalidPath
    return unquote_to_bytes(path)


def decode_path(raw_path):
    """The path that a function receives as `rawPath`.

    Recorded from the service with payload format 2.0 (hotsock/voker on GitHub, pull request 8,
    vokerhttp/testdata/ingress-paths.json): AWS decodes twice. A `?` of the first pass ends the
    path, one of the second does not; a stray `%` of the first pass is refused, one of the second
    is delivered. Not recorded, and therefore as in ministack: path parameters are cut from this
    path, and bytes that are not UTF-8 become U+FFFD.
    """
    once = unescape(raw_path.encode()).split(b"?")[0]
    return unescape(once).decode(errors="replace")


def head_size(method, target, headers):
    """The bytes of the request line and of all headers.

    AWS documents header values. Names are counted too, so that what passes here passes there. The
    longer path here (`/_aws/execute-api/...`) makes up for the longer `Host` there.
    """
    lines = [f"{name}: {value}" for name, value in headers.items()]
    return sum(len(line.encode()) for line in (f"{method} {target} HTTP/1.1", *lines))


def refusal(status):
    """What an HTTP API answers itself."""
    body = json.dumps({"message": HTTPStatus(status).phrase}).encode()
    return status, {"Content-Type": "application/json"}, body


def malformed(method, target, headers):
    """The response to a request that is refused whoever sent it, or None.

    A public report (backbencher.dev, 431 from API Gateway) names the status for the size; the page
    of quotas names none. The 400 is recorded with the paths above.
    """
    if head_size(method, target, headers) > MAX_HEAD:
        return refusal(431)
    try:
        decode_path(target.split("?")[0])
    except InvalidPath:
        return refusal(400)
    return None


def is_http_api(api_id):
    return apigateway.find_api_scope(api_id) is not None


def import_body(api_id, body):
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


def install():
    create, update = provisioners._apigw_v2_api_create, provisioners._apigw_v2_api_update
    handle, enforce = ministack.app._handle_execute_api_request, ministack.app._enforce_execute_api

    def api_create(logical_id, properties, stack_name):
        api_id, attributes = create(logical_id, properties, stack_name)
        if properties.get("Body"):
            import_body(api_id, properties["Body"])
        return api_id, attributes

    def api_update(physical_id, old, new, stack_name, logical_id=None):
        api_id, attributes = update(physical_id, old, new, stack_name, logical_id)
        if new.get("Body"):
            import_body(api_id, new["Body"])
        return api_id, attributes

    for table in vars(provisioners).values():
        if isinstance(table, dict) and "create" in (table.get(API) or {}):
            table[API].update(create=api_create, update=api_update)

    async def handle_request(
        host, path, method, headers, body, query, raw_path=None, raw_query_string=None
    ):
        parsed = ministack.app._parse_execute_api_url(host, path)
        if parsed and is_http_api(parsed[0]):
            target = (raw_path or path) + (f"?{raw_query_string}" if raw_query_string else "")
            refused = malformed(method, target, headers)
            if refused:
                return refused
        return await handle(host, path, method, headers, body, query, raw_path, raw_query_string)

    def enforce_request(api_id, *arguments, **named):
        # What IAM evaluates is not documented. Here it is ministack's choice, the path decoded
        # once, so a policy and a function can see different paths, as they may on AWS.
        denied = enforce(api_id, *arguments, **named)
        if denied and is_http_api(api_id):
            return refusal(403)
        return denied

    ministack.app._handle_execute_api_request = handle_request
    ministack.app._enforce_execute_api = enforce_request
    apigateway.decode_http_api_path = decode_path
