"""EventBridge Scheduler's context attributes in the input of a target.

Source: AWS, EventBridge Scheduler User Guide, "Adding context attributes".
"""

from datetime import datetime, timezone

from ministack.services import eventbridge


def scheduled_time(schedule):
    """When it was due, as AWS writes it: a one-time schedule says so itself."""
    expression = schedule.get("ScheduleExpression", "")
    if expression.startswith("at("):
        return f"{expression[3:-1]}Z"
    return f"{datetime.now(timezone.utc):%Y-%m-%dT%H:%M:%SZ}"


def install():
    invoke = eventbridge._invoke_target

    def invoke_target(target, event, rule, *more, **named):
        if event.get("Source") == "aws.scheduler" and "<aws.scheduler." in target.get("Input", ""):
            attributes = {
                "schedule-arn": rule.get("Arn", ""),
                "scheduled-time": scheduled_time(rule),
                "execution-id": event["EventId"],
                "attempt-number": "1",
            }
            text = target["Input"]
            for name, value in attributes.items():
                text = text.replace(f"<aws.scheduler.{name}>", value)
            target = {**target, "Input": text}
        return invoke(target, event, rule, *more, **named)

    eventbridge._invoke_target = invoke_target
