"""CloudFormation: Fn::Join in a condition.

ministack compares the unevaluated function, so a condition on an empty list is never true.
Source: AWS, CloudFormation User Guide, "Condition functions", "Supported functions".
"""

from typing import Any

from ministack.services.cloudformation import changesets, engine, handlers, stacks

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


def install() -> None:
    evaluate = engine._evaluate_conditions

    def evaluate_conditions(template: Fields, parameters: Fields) -> Any:
        conditions = joined(template.get("Conditions", {}), parameters)
        return evaluate({**template, "Conditions": conditions}, parameters)

    for module in (engine, stacks, handlers, changesets):
        module._evaluate_conditions = evaluate_conditions
