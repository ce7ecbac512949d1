"""Values that differ in one place from an example that is valid, with what the API must do."""

import copy
import json
from collections.abc import Iterator
from typing import Any

from openapi.document import is_valid

Place = tuple[str | int, ...]

# A schema describes the values of these fields only in part, so the API may reject what it allows.
# A `version` that is a text is valid if a version has it.
INCOMPLETE = ("expires_at", "length", "next", "schedule", "template", "timezone", "version")


def expectation(valid: bool, name: str | int | None = None) -> str:
    """Returns what to expect if only this field differs from a request that is accepted.

    `accepted` and `rejected` are about the request itself: a secret that does not exist is not a
    rejection. With `documented`, any documented response below 500 will do; with `any`, others too.
    """
    if not valid:
        return "rejected"
    return "documented" if name in INCOMPLETE else "accepted"


def variations(schema: Any, examples: list[Any]) -> Iterator[tuple[str, Any, str]]:
    """Yields each example, and values that differ from one in one place.

    Each has a description and what to expect.
    """
    seen = set()

    def variation(about: str, value: Any, name: str | int | None = None) -> Iterator[Any]:
        expected = expectation(is_valid(schema, value), name)
        if (about, expected) not in seen:
            seen.add((about, expected))
            yield about, value, expected

    for example in examples:
        yield f"example {shown(example)}", example, "accepted"
        for path, inner in places(schema, example):
            place = ".".join(str(part) for part in path) or "body"
            name = path[-1] if path else None
            here = at(example, path)
            if isinstance(name, str) and here is not None:
                rest = {key: each for key, each in at(example, path[:-1]).items() if key != name}
                yield from variation(f"without {place}", replace(example, path[:-1], rest))
            if isinstance(here, dict) and inner.get("additionalProperties") is False:
                unknown = replace(example, path, {**here, "unknown": 1})
                yield from variation(f"unknown field in {place}", unknown)
            for candidate in candidates(inner, here):
                value = replace(example, path, candidate)
                yield from variation(f"{place}: {shown(candidate)}", value, name)


def shown(value: Any) -> str:
    """Returns JSON, shortened."""
    text = json.dumps(value)
    return text if len(text) <= 60 else f"{text[:50]}... ({len(text)})"


def candidates(schema: Any, example: Any) -> Iterator[Any]:
    """Yields values of every JSON type, and values at and just beyond each limit of a schema."""
    yield from (None, True, 1.5, "", "\u0001", {}, ["x"], {"x": 1}, {"": "x"})
    for branch in [schema, *schema.get("anyOf", []), *schema.get("oneOf", [])]:
        yield from branch.get("enum", [])
        if "minimum" in branch:
            yield from (branch["minimum"], branch["minimum"] - 1)
        if "maximum" in branch:
            yield from (branch["maximum"], branch["maximum"] + 1)
        if "maxLength" in branch:
            text = example if isinstance(example, str) and example else "x"
            yield text.ljust(branch["maxLength"], text[-1])
            yield text.ljust(branch["maxLength"] + 1, text[-1])
        if "maxItems" in branch and isinstance(example, list) and example:
            yield [numbered(example[0], number) for number in range(branch["maxItems"] + 1)]


def numbered(item: Any, number: int) -> Any:
    """Returns an item of an array whose names must differ."""
    return {**item, "name": f"{item['name']}-{number}"} if "name" in item else item


def places(schema: Any, value: Any, path: Place = ()) -> Iterator[tuple[Place, Any]]:
    """Yields the paths and schemas of the fields that a value has or could have."""
    if not isinstance(schema, dict):
        return
    yield path, schema
    for branch in schema.get("anyOf", []) + schema.get("oneOf", []):
        if is_valid(branch, value):
            for inner_path, inner in places(branch, value, path):
                if inner_path != path:
                    yield inner_path, inner
    if isinstance(value, dict):
        for name, inner in schema.get("properties", {}).items():
            yield from places(inner, value.get(name), (*path, name))
    if isinstance(value, list) and value and "items" in schema:
        yield from places(schema["items"], value[0], (*path, 0))


def at(value: Any, path: Place) -> Any:
    """Returns what is at a path, or None."""
    for part in path:
        value = value.get(part) if isinstance(value, dict) else value[part]
    return value


def replace(value: Any, path: Place, new: Any) -> Any:
    """Returns a copy with another value at a path."""
    if not path:
        return new
    value = copy.deepcopy(value)
    at(value, path[:-1])[path[-1]] = new
    return value
