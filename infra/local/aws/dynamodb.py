"""DynamoDB's indexes as AWS reads them: in the order of their hash keys, and whole rows on demand.
A parallel Scan starts from keys of its own segment only."""

import hashlib
from contextvars import ContextVar

from ministack.core.responses import error_response_json
from ministack.services import dynamodb

from .request import body_of

whole_rows = ContextVar("whole_rows", default=False)


def segment_of(key, hash_key, total):
    """The segment of a key, by its hash key alone, as ministack's Scan assigns it."""
    value = str(dynamodb._extract_key_val(key.get(hash_key)))
    digest = hashlib.sha1(value.encode()).digest()
    return int.from_bytes(digest[:4], "big") % total


def outside_segment(request):
    """The error for a start key of another segment, or None.

    Whether an item has the key does not matter. AWS does not document this; the message was
    recorded from the service (scylladb/scylladb on GitHub, pull request 9270).
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


def install():
    order, project, handle, scan = (
        dynamodb._index_order_keys,
        dynamodb._apply_index_projection,
        dynamodb.handle_request,
        dynamodb._scan,
    )

    def segmented_scan(request):
        # ministack's own checks come first; the request is valid if it was answered.
        response = scan(request)
        return (response[0] == 200 and outside_segment(request)) or response

    def index_order_keys(table, sort_key):
        # A Scan of an index goes by the index's hash key first. ministack leaves that out; every
        # index of Coffer's has the hash key of its table, so that one stands for it.
        return sorted(order(table, sort_key), key=lambda key: key[0] != table.get("pk_name"))

    def apply_index_projection(item, table, index_name):
        local = {index["IndexName"] for index in table.get("LocalSecondaryIndexes") or []}
        # A local index fetches from its table what it does not project.
        if whole_rows.get() and index_name in local:
            return item
        return project(item, table, index_name)

    async def handle_request(method, path, headers, body, query):
        token = whole_rows.set(body_of(body).get("Select") == "ALL_ATTRIBUTES")
        try:
            return await handle(method, path, headers, body, query)
        finally:
            whole_rows.reset(token)

    dynamodb._index_order_keys = index_order_keys
    dynamodb._scan = segmented_scan
    dynamodb._apply_index_projection = apply_index_projection
    dynamodb.handle_request = handle_request
