"""An HTTP API's routes from its OpenAPI body, which is what SAM's HttpApi events become."""

import json

from ministack.services import apigateway
from ministack.services.cloudformation import provisioners

API = "AWS::ApiGatewayV2::Api"
ANY = "x-amazon-apigateway-any-method"


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
