"""Requests to every operation: valid and invalid ones field by field, and random ones."""

import json
import re
from collections.abc import Iterator
from typing import Any
from urllib.parse import quote, urlencode

import hypothesis
import schemathesis
from schemathesis import GenerationMode
from schemathesis.core import NOT_SET

from openapi.document import Operation, is_valid
from openapi.variations import candidates, expectation, variations

Pairs = list[tuple[str, str]]

# They read all secrets of the table, including those that other tests have damaged.
READ_EVERYTHING = ("getAll", "listAllNames")
# Each of their requests has a name of its own, because it can use up a version or a token.
WRITERS = ("put", "putMany")
# Query fields that need another one.
NEEDS = {"uppercase": {"format": "dotenv"}}
# In bytes, so that a query fits a request line and headers with a signature.
MAX_QUERY = 6000
RANDOM_REQUESTS = 10


def requests(operations: dict[str, Operation], prefix: str) -> list[dict[str, Any]]:
    """Returns the requests, all to names under the prefix and the ID of their operation."""
    collected = Requests(prefix)
    for operation in operations.values():
        collected.add_bodies(operation)
        collected.add_queries(operation)
        collected.add_paths(operation)
        if operation.id not in READ_EVERYTHING:
            collected.add_random(operation)
    return collected.found


class Requests:
    """Collects requests."""

    def __init__(self, prefix: str) -> None:
        self.prefix = prefix
        self.found: list[dict[str, Any]] = []
        self.known: set[str] = set()

    def add_bodies(self, operation: Operation) -> None:
        if operation.body:
            examples = [example["value"] for example in operation.body["examples"].values()]
            for about, body, expected in variations(operation.body["schema"], examples):
                self.add(operation, about, expected, body=body)
            self.add(operation, "body that is not JSON", "rejected", raw="{")

    def add_queries(self, operation: Operation) -> None:
        for about, query, expected in queries(operation):
            if operation.id not in READ_EVERYTHING or expected == "rejected":
                self.add(operation, about, expected, query, **first_body(operation))
        if operation.id in READ_EVERYTHING:
            self.add(operation, "one secret", "any", [("limit", "1")])

    def add_paths(self, operation: Operation) -> None:
        parameter = operation.path_parameter
        if parameter:
            for about, ending, expected in endings(parameter["schema"]):
                # The names under the longest prefix would be too long.
                if operation.id == "putMany" and expected == "accepted":
                    continue
                self.add(operation, about, expected, ending=ending, **first_body(operation))

    def add_random(self, operation: Operation) -> None:
        for mode in (GenerationMode.POSITIVE, GenerationMode.NEGATIVE):
            for case in random_cases(operation, mode):
                about = f"random {mode.value}"
                query = random_query(operation, case)
                if len(urlencode(query, errors="replace")) < MAX_QUERY:
                    self.add(operation, about, "documented", query, **random_body(case))

    def add(
        self,
        operation: Operation,
        about: str,
        expected: str,
        query: Pairs | None = None,
        ending: str = "",
        **body: Any,
    ) -> None:
        """Adds a request.

        `ending` is the end of its path. `body` is `body`, which is JSON, or `raw`, which is text.
        """
        content = json.dumps([operation.id, query, ending, body])
        if content in self.known:
            return
        self.known.add(content)
        path, parameter = operation.path, operation.path_parameter
        if parameter:
            name = self.name(operation, parameter, ending)
            path = path.replace(f"{{{parameter['name']}}}", name)
            if operation.id == "putMany" and "body" in body:
                body["body"] = moved(body["body"], name)
        request = {"operation": operation.id, "method": operation.method, "path": path}
        what = {"query": query or [], "about": about, "expected": expected, **body}
        self.found.append(request | what)

    def name(self, operation: Operation, parameter: Any, ending: str) -> str:
        """Returns the value of the path parameter. A long ending has the length of the value."""
        if "enum" in parameter["schema"]:
            return ending or parameter["example"]
        name = f"{self.prefix}/{operation.id}"
        if operation.id in WRITERS:
            name += f"/{len(self.found)}"
        return f"{name}/{ending}"[: max(len(ending), len(name) + 4)] if ending else name


def first_body(operation: Operation) -> dict[str, Any]:
    """Returns the first example, as an argument of `Requests.add`."""
    examples = operation.body.get("examples", {})
    return {"body": next(iter(examples.values()))["value"]} if examples else {}


def moved(body: Any, prefix: str) -> Any:
    """Returns the body of a put many with its names under this prefix instead of `stage`."""

    def name(old: Any) -> Any:
        if not isinstance(old, str) or not old.startswith("stage"):
            return old
        new = prefix + old.removeprefix("stage")
        # A name at the limit stays there.
        return new[: len(old)] if len(old) >= 512 else new

    secrets = body.get("secrets") if isinstance(body, dict) else None
    if isinstance(secrets, dict):
        return {**body, "secrets": {name(old): secret for old, secret in secrets.items()}}
    if isinstance(secrets, list):
        puts = [
            {**put, "name": name(put["name"])} if isinstance(put, dict) and "name" in put else put
            for put in secrets
        ]
        return {**body, "secrets": puts}
    return body


# ---- paths ----


def endings(schema: Any) -> Iterator[tuple[str, str, str]]:
    """Yields endings of a path, each with a description and what to expect."""
    if "enum" in schema:
        for value in schema["enum"]:
            yield f"{value} in the path", value, "accepted"
        yield "unknown value in the path", "x", "rejected"
        return
    yield "name with a control character", "\u0001", "rejected"
    # API Gateway rejects a lone percent sign itself.
    yield "name with a percent sign", "%25", "rejected"
    yield "name that is too long", "n" * (schema["maxLength"] + 1), "rejected"
    if schema["maxLength"] == 512:
        # A longer name exists only if another client stored it.
        yield "longest name", "n" * schema["maxLength"], "accepted"


# ---- queries ----


def queries(operation: Operation) -> Iterator[tuple[str, Pairs, str]]:
    """Yields queries with one field, each with a description and what to expect."""
    yield "no query", [], "accepted"
    for name in ("unknown", "name", "prefix"):
        yield f"query field {name}", [(name, "x")], "rejected"
    for parameter in operation.query:
        name = parameter["name"]
        needed = list(NEEDS.get(name, {}).items())
        values = dict(query_values(parameter))
        for text, expected in values.items():
            if len(quote(text)) < MAX_QUERY:
                yield f"{name}={text:.60}", [*needed, (name, text)], expected
        twice = next(text for text, expected in values.items() if expected != "rejected")
        yield f"{name} twice", [*needed, (name, twice), (name, twice)], "rejected"


def query_values(parameter: Any) -> Iterator[tuple[str, str]]:
    """Yields values of a query field as text, each with what to expect."""
    if "content" in parameter:
        content = parameter["content"]["application/json"]
        for _, value, expected in variations(content["schema"], [content["example"]]):
            yield json.dumps(value), expected
        return
    schema, example = parameter["schema"], parameter.get("example")
    for value in ["", "x", "TRUE", "+1", "1.5", example, *candidates(schema, example)]:
        if isinstance(value, (str, bool, int)):
            text = value if isinstance(value, str) else json.dumps(value)
            yield text, expectation(is_valid(schema, read(schema, text)), parameter["name"])


def read(schema: Any, text: str) -> Any:
    """Returns the value of a query field, which is text, as the API reads it."""
    if schema.get("type") == "integer" and re.fullmatch("[0-9]+", text):
        return int(text)
    if schema.get("type") == "boolean" and text in ("true", "false"):
        return text == "true"
    return text


# ---- random requests ----


def random_cases(operation: Operation, mode: GenerationMode) -> list[schemathesis.Case]:
    """Returns requests that the schemas allow or do not allow, the same in every run."""
    cases: list[schemathesis.Case] = []

    @hypothesis.settings(
        max_examples=RANDOM_REQUESTS,
        database=None,
        derandomize=True,
        deadline=None,
        phases=[hypothesis.Phase.generate],
        suppress_health_check=list(hypothesis.HealthCheck),
    )
    @hypothesis.given(operation.source.as_strategy(generation_mode=mode))
    def collect(case: schemathesis.Case) -> None:
        cases.append(case)

    collect()
    return cases


def random_query(operation: Operation, case: schemathesis.Case) -> Pairs:
    """Returns the query of a random request as text."""
    allowed = [parameter["name"] for parameter in operation.query]
    pairs: Pairs = []
    for name, value in (case.query or {}).items():
        # schemathesis considers unknown query fields valid; the API rejects them.
        if name in allowed or (name and case.meta.generation.mode is GenerationMode.NEGATIVE):
            for each in value if isinstance(value, list) else [value]:
                pairs.append((name, each if isinstance(each, str) else json.dumps(each)))
    return pairs


def random_body(case: schemathesis.Case) -> dict[str, Any]:
    """Returns the body of a random request, as an argument of `Requests.add`."""
    if case.body is NOT_SET:
        return {}
    if isinstance(case.body, bytes):
        return {"raw": case.body.decode(errors="replace")}
    return {"body": case.body}
