"""DynamoDB: the order and projection of indexes, and the segments of a parallel scan.

A scan of an index is ordered by the index's hash key. A query of a local index can return all
attributes. A segment of a parallel scan accepts only its own start keys.
"""

import hashlib
from contextvars import ContextVar
from typing import Any

from ministack.core.responses import error_response_json
from ministack.services import dynamodb

from .request import Fields, Headers, Response, body_of

# Whether the current request selects all attributes.
whole_rows = ContextVar("whole_rows", default=False)


def segment_of(key: Fields, hash_key: str, total: int) -> int:
    """Returns the segment that ministack's scan assigns to a key, by its hash key alone."""
    value = str(dynamodb._extract_key_val(key.get(hash_key)))
    digest = hashlib.sha1(value.encode()).digest()
    return int.from_bytes(digest[:4], "big") % total


def outside_segment(request: Fields) -> Response | None:
    """Returns the error for a start key of another segment, or None.

    It does not matter whether an item with the key exists. AWS does not document this; the message
    was recorded from the service (scylladb/scylladb on GitHub, pull request 9270).
    """
    start = request.get("ExclusiveStartKey")
    if not start or "Segment" not in request:
        return None
    segment, total = int(request["Segment"]), int(request["TotalSegments"])
    table = dynamodb._tables[dynamodb._normalize_table_name(request["TableName"])]
    hash_key = dynamodb._resolve_index_keys(table, request.get("IndexName"))[0]
    if segment_of(start, hash_key, total) == segment:
        return None
    return error_response_json(
        "ValidationException",
        "The provided starting key is invalid: Invalid ExclusiveStartKey. Please use "
        f"ExclusiveStartKey with correct Segment. TotalSegments: {total} Segment: {segment}",
        400,
    )


def install() -> None:
    order, project, handle, scan = (
        dynamodb._index_order_keys,
        dynamodb._apply_index_projection,
        dynamodb.handle_request,
        dynamodb._scan,
    )

    def segmented_scan(request: Fields) -> Response:
        # ministack's checks come first: if it responds with 200, the request is valid.
        response = scan(request)
        return (response[0] == 200 and outside_segment(request)) or response

    def index_order_keys(table: Fields, sort_key: Any) -> list[Any]:
        # A scan of an index is ordered by the index's hash key first, which ministack omits. Every
        # index of Coffer has the hash key of its table, so that one is used.
        return sorted(order(table, sort_key), key=lambda key: key[0] != table.get("pk_name"))

    def apply_index_projection(item: Fields, table: Fields, index_name: str) -> Any:
        local = {index["IndexName"] for index in table.get("LocalSecondaryIndexes") or []}
        # DynamoDB fetches attributes that a local index does not project from the table.
        if whole_rows.get() and index_name in local:
            return item
        return project(item, table, index_name)

    async def handle_request(
        method: str, path: str, headers: Headers, body: bytes, query: Any
    ) -> Response:
        token = whole_rows.set(body_of(body).get("Select") == "ALL_ATTRIBUTES")
        try:
            return await handle(method, path, headers, body, query)
        finally:
            whole_rows.reset(token)

    dynamodb._index_order_keys = index_order_keys
    dynamodb._scan = segmented_scan
    dynamodb._apply_index_projection = apply_index_projection
    dynamodb.handle_request = handle_request
