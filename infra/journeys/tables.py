"""Reads a whole DynamoDB table."""

from typing import Any


def scan(table: Any) -> list[Any]:
    """Returns all items of a table."""
    items: list[Any] = []
    following: dict[str, Any] = {}
    while True:
        page = table.scan(ConsistentRead=True, **following)
        items += page["Items"]
        if "LastEvaluatedKey" not in page:
            return items
        following = {"ExclusiveStartKey": page["LastEvaluatedKey"]}
