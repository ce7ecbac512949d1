"""EventBridge Pipes from a DynamoDB stream to an event bus: filter, input template, PutEvents.

ministack's pipes support neither filters nor this target, and drop the parameters of both.
"""

import json
import re
from collections.abc import Callable
from typing import Any

from ministack.services import eventbridge, pipes
from ministack.services.cloudformation import provisioners

from .request import Fields

PIPE = "AWS::Pipes::Pipe"
VARIABLE = re.compile(r"<\$\.([\w.]+)>")
# The parameters of source and target, by the pipe's name, as long as this process runs.
parameters: dict[str, tuple[Fields, Fields]] = {}


def passes(record: Fields, source: Fields) -> bool:
    """Returns whether a record passes the filters of a pipe's source."""
    filters = (source.get("FilterCriteria") or {}).get("Filters") or []
    # ministack matches events only, so the record and its pattern become the `detail` of one.
    event = {"Detail": json.dumps(record), "Source": "pipe", "DetailType": "record"}
    patterns = [json.dumps({"detail": json.loads(each["Pattern"])}) for each in filters]
    return not filters or any(eventbridge._matches_pattern(each, event) for each in patterns)


def filled(template: str, record: Fields) -> str:
    """Returns an input template with its variables replaced by values of the record."""

    def value(match: re.Match[str]) -> str:
        found: Any = record
        for part in match[1].split("."):
            found = found[part]
        return json.dumps(found)

    return VARIABLE.sub(value, template)


def send(pipe: Fields, batch: list[Fields]) -> bool:
    """Sends the records that pass the filters to the event bus."""
    source, target = parameters[pipe["Name"]]
    bus = target["EventBridgeEventBusParameters"]
    for record in batch:
        if passes(record, source):
            entry = {
                "Source": bus["Source"],
                "DetailType": bus["DetailType"],
                "Detail": filled(target["InputTemplate"], record),
                "EventBusName": pipe["Target"],
            }
            eventbridge._put_events({"Entries": [entry]})
    return True


def install() -> None:
    deliver = pipes._deliver_batch

    def deliver_batch(pipe: Fields, batch: list[Fields]) -> Any:
        if pipe.get("Name") in parameters and pipes._arn_service(pipe["Target"]) == "events":
            return send(pipe, batch)
        return deliver(pipe, batch)

    pipes._deliver_batch = deliver_batch
    for table in vars(provisioners).values():
        if isinstance(table, dict) and "create" in (table.get(PIPE) or {}):
            for action in ("create", "update"):
                table[PIPE][action] = keeping(table[PIPE][action], action)


def keeping(inner: Callable[..., Any], action: str) -> Callable[..., Any]:
    """Returns a provisioner's function that also keeps the parameters of a pipe."""

    def create(logical_id: str, properties: Fields, stack_name: str) -> Any:
        name, attributes = inner(logical_id, properties, stack_name)
        keep(name, properties)
        return name, attributes

    def update(
        physical_id: str, old: Fields, new: Fields, stack_name: str, logical_id: str | None = None
    ) -> Any:
        name, attributes = inner(physical_id, old, new, stack_name, logical_id)
        keep(name, new)
        return name, attributes

    return create if action == "create" else update


def keep(name: str, properties: Fields) -> None:
    source = properties.get("SourceParameters") or {}
    target = properties.get("TargetParameters") or {}
    if target.get("EventBridgeEventBusParameters"):
        parameters[name] = source, target
