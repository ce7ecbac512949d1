"""The operations of an OpenAPI document, and whether a value is what a schema allows."""

import copy
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import schemathesis
import yaml
from jsonschema import Draft202012Validator
from jsonschema.exceptions import best_match

METHODS = ("get", "put", "post", "delete")


@dataclass
class Operation:
    """An operation, with each reference replaced by what it refers to."""

    id: str
    method: str
    path: str
    parameters: list[Any]
    # The media type of the body: its schema and examples. Empty if there is no body.
    body: dict[str, Any]
    responses: dict[str, Any]
    # The same operation as schemathesis reads it.
    source: Any

    @property
    def query(self) -> list[Any]:
        """The parameters in the query."""
        return [each for each in self.parameters if each["in"] == "query"]

    @property
    def path_parameter(self) -> Any:
        """The parameter in the path, or None."""
        return next((each for each in self.parameters if each["in"] == "path"), None)


def load(path: str) -> dict[str, Operation]:
    """Returns the operations of a document by their IDs."""
    document = yaml.safe_load(Path(path).read_text())
    source = schemathesis.openapi.from_dict(copy.deepcopy(document))
    operations = {}
    for route, item in inline(document["paths"], document).items():
        for method in METHODS:
            operation = item.get(method)
            if operation:
                content = operation.get("requestBody", {}).get("content", {})
                operations[operation["operationId"]] = Operation(
                    id=operation["operationId"],
                    method=method.upper(),
                    path=route,
                    parameters=item.get("parameters", []) + operation.get("parameters", []),
                    body=content.get("application/json", {}),
                    responses=operation["responses"],
                    source=source[route][method.upper()],
                )
    return operations


def inline(node: Any, document: Any) -> Any:
    """Replaces references by what they refer to. The document has no circular references."""
    if isinstance(node, list):
        return [inline(each, document) for each in node]
    if not isinstance(node, dict):
        return node
    siblings = {key: inline(value, document) for key, value in node.items() if key != "$ref"}
    if "$ref" not in node:
        return siblings
    target = document
    for part in node["$ref"].removeprefix("#/").split("/"):
        target = target[part]
    return narrow(inline(target, document), siblings)


def narrow(target: Any, siblings: Any) -> Any:
    """Adds the siblings of a reference to its target. They allow nothing that it does not."""
    narrowed = {**target, **siblings}
    if "properties" in target and "properties" in siblings:
        narrowed["properties"] = {**target["properties"], **siblings["properties"]}
    if "required" in target and "required" in siblings:
        narrowed["required"] = target["required"] + siblings["required"]
    return narrowed


def closed(schema: Any) -> Any:
    """Returns a schema that allows no fields except those that it names.

    The document leaves responses open, so that clients accept the fields of later releases.
    """
    if isinstance(schema, list):
        return [closed(each) for each in schema]
    if not isinstance(schema, dict):
        return schema
    schema = {key: closed(value) for key, value in schema.items()}
    if schema.get("type") == "object" and "properties" in schema:
        schema.setdefault("additionalProperties", False)
    return schema


def is_valid(schema: Any, value: Any) -> bool:
    return Draft202012Validator(schema).is_valid(value)


def fault(schema: Any, value: Any) -> str | None:
    """Returns why a value is not valid, or None if it is."""
    error = best_match(Draft202012Validator(schema).iter_errors(value))
    return error and f"{error.json_path}: {error.message}"


def check_examples(operations: dict[str, Operation]) -> Iterator[str]:
    """Yields the examples that the schemas do not allow."""
    for operation in operations.values():
        media = {"request": operation.body}
        for status, response in operation.responses.items():
            media |= {f"{status} {kind}": each for kind, each in response["content"].items()}
        for parameter in operation.parameters:
            media[parameter["name"]] = parameter.get("content", {}).get(
                "application/json", parameter
            )
        for place, each in media.items():
            examples = [example["value"] for example in each.get("examples", {}).values()]
            examples += [each["example"]] if "example" in each else []
            for example in examples:
                problem = fault(closed(each["schema"]), example)
                if problem:
                    yield f"{operation.id}, {place}: {problem}"
