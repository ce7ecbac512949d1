"""CloudFormation's Fn::Join within a condition.

ministack compares the function itself, so a condition on an empty list is never true.
Source: AWS, CloudFormation User Guide, "Condition functions", "Supported functions".
"""

from ministack.services.cloudformation import changesets, engine, handlers, stacks


def joined(expression, parameters):
    """The same expression with the value of each Fn::Join in its place."""
    if isinstance(expression, list):
        return [joined(part, parameters) for part in expression]
    if not isinstance(expression, dict):
        return expression
    if "Fn::Join" not in expression:
        return {key: joined(part, parameters) for key, part in expression.items()}
    separator, parts = expression["Fn::Join"]
    if isinstance(parts, dict):
        parts = parameters[parts["Ref"]]["Value"]
    # A CommaDelimitedList parameter is one string here.
    return separator.join(parts.split(",") if isinstance(parts, str) else parts)


def install():
    evaluate = engine._evaluate_conditions

    def evaluate_conditions(template, parameters):
        conditions = joined(template.get("Conditions", {}), parameters)
        return evaluate({**template, "Conditions": conditions}, parameters)

    for module in (engine, stacks, handlers, changesets):
        module._evaluate_conditions = evaluate_conditions
