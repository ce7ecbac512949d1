"""CloudFormation: Fn::Join in a condition, aliases that exist, and references in metadata.

ministack compares the unevaluated function, so a condition on an empty list is never true.
Source: AWS, CloudFormation User Guide, "Condition functions", "Supported functions".

It also points an existing alias to the new key, where AWS's CreateAlias fails, and ignores that a
reference in a resource's Metadata is a dependency.
"""

from typing import Any

from ministack.services import kms
from ministack.services.cloudformation import changesets, engine, handlers, provisioners, stacks

from .request import Fields


def joined(expression: Any, parameters: Fields) -> Any:
    """Returns an expression with each Fn::Join replaced by its value."""
    if isinstance(expression, list):
        return [joined(part, parameters) for part in expression]
    if not isinstance(expression, dict):
        return expression
    if "Fn::Join" not in expression:
        return {key: joined(part, parameters) for key, part in expression.items()}
    separator, parts = expression["Fn::Join"]
    if isinstance(parts, dict):
        parts = parameters[parts["Ref"]]["Value"]
    # ministack keeps a CommaDelimitedList parameter as one string.
    return separator.join(parts.split(",") if isinstance(parts, str) else parts)


extract_dependencies = engine._extract_deps


def create_alias(logical_id: str, properties: Fields, stack: str) -> Any:
    """Creates an alias, unless it exists."""
    name = properties.get("AliasName", "")
    if kms._alias_arn(name) in kms._aliases:
        raise ValueError(f"An alias with the name {name} already exists")
    return provisioners._kms_alias_create(logical_id, properties, stack)


def dependencies(resource: Fields, names: set[str]) -> Any:
    """Returns the resources that a resource refers to in its properties or its metadata."""
    within = {"properties": resource.get("Properties"), "metadata": resource.get("Metadata")}
    return extract_dependencies({**resource, "Properties": within}, names)


def install() -> None:
    for module in (engine, stacks):
        module._extract_deps = dependencies
    provisioners._RESOURCE_HANDLERS["AWS::KMS::Alias"]["create"] = create_alias
    evaluate = engine._evaluate_conditions

    def evaluate_conditions(template: Fields, parameters: Fields) -> Any:
        conditions = joined(template.get("Conditions", {}), parameters)
        return evaluate({**template, "Conditions": conditions}, parameters)

    for module in (engine, stacks, handlers, changesets):
        module._evaluate_conditions = evaluate_conditions
