"""DynamoDB's indexes as AWS reads them: in the order of their hash keys, and whole rows on demand."""

from contextvars import ContextVar

from ministack.services import dynamodb

from .request import body_of

whole_rows = ContextVar("whole_rows", default=False)


def install():
    order, project, handle = (
        dynamodb._index_order_keys,
        dynamodb._apply_index_projection,
        dynamodb.handle_request,
    )

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
    dynamodb._apply_index_projection = apply_index_projection
    dynamodb.handle_request = handle_request
