"""EventBridge Pipes from a DynamoDB stream to an event bus: filter, input template, PutEvents.

ministack's pipes know neither filters nor this target, and keep no parameters.
"""

import json
import re

from ministack.services import eventbridge, pipes
from ministack.services.cloudformation import provisioners

PIPE = "AWS::Pipes::Pipe"
VARIABLE = re.compile(r"<\$\.([\w.]+)>")
# By the pipe's name, for as long as this process lives.
parameters = {}


def passes(record, source):
    filters = (source.get("FilterCriteria") or {}).get("Filters") or []
    # An event pattern looks below `detail` for the names that a record has at its top.
    inside = {"source": "pipe", "detail-type": "record", "detail": record}
    patterns = [json.dumps({"detail": json.loads(one["Pattern"])}) for one in filters]
    return not filters or any(eventbridge._matches_pattern(one, event_of(inside)) for one in patterns)


def event_of(event):
    return {"Detail": json.dumps(event["detail"]), "Source": "pipe", "DetailType": "record"}


def filled(template, record):
    def value(match):
        found = record
        for part in match[1].split("."):
            found = found[part]
        return json.dumps(found)

    return VARIABLE.sub(value, template)


def send(pipe, batch):
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


def install():
    deliver = pipes._deliver_batch

    def deliver_batch(pipe, batch):
        if pipe.get("Name") in parameters and pipes._arn_service(pipe["Target"]) == "events":
            return send(pipe, batch)
        return deliver(pipe, batch)

    pipes._deliver_batch = deliver_batch
    for table in vars(provisioners).values():
        if isinstance(table, dict) and "create" in (table.get(PIPE) or {}):
            for action in ("create", "update"):
                table[PIPE][action] = keeping(table[PIPE][action], action)


def keeping(inner, action):
    """The provisioner's own function, and a copy of the parameters that it drops."""

    def create(logical_id, properties, stack_name):
        name, attributes = inner(logical_id, properties, stack_name)
        keep(name, properties)
        return name, attributes

    def update(physical_id, old, new, stack_name, logical_id=None):
        name, attributes = inner(physical_id, old, new, stack_name, logical_id)
        keep(name, new)
        return name, attributes

    return create if action == "create" else update


def keep(name, properties):
    source, target = properties.get("SourceParameters"), properties.get("TargetParameters")
    if (target or {}).get("EventBridgeEventBusParameters"):
        parameters[name] = source or {}, target
