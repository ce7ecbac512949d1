"""EventBridge Scheduler's context attributes in the input of a target.

Source: AWS, EventBridge Scheduler User Guide, "Adding context attributes".
"""

from datetime import UTC, datetime
from typing import Any

from ministack.services import eventbridge

from .request import Fields


def scheduled_time(schedule: Fields) -> str:
    """Returns the time at which a schedule is due, in AWS's format.

    For a one-time schedule this is its own time, otherwise now.
    """
    expression = schedule.get("ScheduleExpression", "")
    if expression.startswith("at("):
        return f"{expression[3:-1]}Z"
    return f"{datetime.now(UTC):%Y-%m-%dT%H:%M:%SZ}"


def install() -> None:
    invoke = eventbridge._invoke_target

    def invoke_target(
        target: Fields, event: Fields, rule: Fields, *arguments: Any, **named: Any
    ) -> Any:
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
        return invoke(target, event, rule, *arguments, **named)

    eventbridge._invoke_target = invoke_target
