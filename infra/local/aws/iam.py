"""IAM: condition keys and resources of KMS and DynamoDB, and `aws:PrincipalArn` of a role."""

import re
from collections.abc import Iterator
from typing import Any

from ministack.core import iam_actions, iam_evaluator
from ministack.services import dynamodb, iam, kms

from .request import Fields, Headers, body_of, key_of

# An attribute name, or a placeholder of one, in an expression; not a function or a value.
WORD = re.compile(r"(?<![:\w.#])#?[A-Za-z_]\w*(?!\w*\s*\()")
OPERATORS = {"AND", "OR", "NOT", "IN", "BETWEEN", "SET", "REMOVE", "ADD", "DELETE"}
EXPRESSIONS = (
    "ProjectionExpression",
    "FilterExpression",
    "UpdateExpression",
    "ConditionExpression",
    "KeyConditionExpression",
)


def kms_key(request: Fields) -> Any:
    """Returns ministack's record of the KMS key that a request uses, or None."""
    return key_of(
        request.get("KeyId")
        or request.get("SourceKeyId")
        or iam_actions._kms_key_id_from_ciphertext(request.get("CiphertextBlob", ""))
    )


def kms_conditions(request: Fields) -> Fields:
    """Returns kms:EncryptionContext, RequestAlias, ResourceAliases and CallerAccount."""
    context = request.get("EncryptionContext") or request.get("SourceEncryptionContext") or {}
    conditions = {f"kms:EncryptionContext:{key}": value for key, value in context.items()}
    if context:
        conditions["kms:EncryptionContextKeys"] = list(context)
    alias = request.get("KeyId", "").find("alias/")
    if alias >= 0:
        conditions["kms:RequestAlias"] = request["KeyId"][alias:]
    key = kms_key(request)
    if key:
        conditions["kms:CallerAccount"] = key["Arn"].split(":")[4]
        arns = [arn for arn, target in kms._aliases.items() if target == key["KeyId"]]
        aliases = [arn.split(":", 5)[-1] for arn in arns]
        if aliases:
            conditions["kms:ResourceAliases"] = aliases
    return conditions


def hash_key(table: str | None) -> str | None:
    """Returns the hash key of a table, given its name or ARN."""
    schema = (dynamodb._tables.get((table or "").split("/")[-1]) or {}).get("KeySchema", [])
    return next((key["AttributeName"] for key in schema if key["KeyType"] == "HASH"), None)


def items(request: Fields) -> Iterator[tuple[str | None, Fields | None]]:
    """Yields (table, key or item) for each key and item of a request."""
    table = request.get("TableName")
    for part in ("Key", "Item"):
        yield table, request.get(part)
    for name, batch in (request.get("RequestItems") or {}).items():
        if isinstance(batch, dict):
            for key in batch.get("Keys", []):
                yield name, key
            continue
        for write in batch:
            yield (
                name,
                write.get("PutRequest", {}).get("Item")
                or write.get("DeleteRequest", {}).get("Key"),
            )
    for transacted in request.get("TransactItems") or []:
        for write in transacted.values():
            yield write.get("TableName"), write.get("Key") or write.get("Item")


def dynamodb_conditions(request: Fields) -> Fields:
    """Returns dynamodb:LeadingKeys, Attributes, Select and ReturnValues."""
    leading: set[str] = set()
    attributes: set[str] = set()
    for table, item in items(request):
        attributes.update(item or {})
        key = hash_key(table)
        if item and key in item:
            leading.update(str(value) for value in item[key].values())
    names = request.get("ExpressionAttributeNames") or {}
    values = request.get("ExpressionAttributeValues") or {}
    for expression in EXPRESSIONS:
        for word in WORD.findall(request.get(expression) or ""):
            word = names.get(word, word)
            if word.upper() not in OPERATORS:
                attributes.add(word)
    key = hash_key(request.get("TableName"))
    if key and not request.get("IndexName"):
        equals = re.search(r"(#?\w+)\s*=\s*(:\w+)", request.get("KeyConditionExpression") or "")
        if equals and names.get(equals[1], equals[1]) == key and equals[2] in values:
            leading.update(str(value) for value in values[equals[2]].values())
    conditions: Fields = {}
    if leading:
        conditions["dynamodb:LeadingKeys"] = sorted(leading)
    if attributes:
        conditions["dynamodb:Attributes"] = sorted(attributes)
    for name in ("ReturnValues", "Select"):
        if name in request:
            conditions[f"dynamodb:{name}"] = request[name]
    return conditions


def install() -> None:
    tags = iam_actions.request_tag_context
    arn = iam_actions.extract_resource_arn
    action_of = iam_actions.extract_iam_action
    service_context = iam_actions.dynamodb_service_context
    resolve = iam_evaluator._resolve_condition_key

    def request_tag_context(service: str, action: str, body: bytes, params: Any) -> Fields:
        context = tags(service, action, body, params)
        conditions = {"kms": kms_conditions, "dynamodb": dynamodb_conditions}.get(service)
        if conditions:
            context.update(conditions(body_of(body)))
        return context

    def extract_resource_arn(
        service: str,
        method: str,
        path: str,
        headers: Headers,
        body: bytes,
        params: Any,
        region: str,
        account: str,
    ) -> Any:
        key = kms_key(body_of(body)) if service == "kms" else None
        return (
            key["Arn"]
            if key
            else arn(service, method, path, headers, body, params, region, account)
        )

    def extract_iam_action(*arguments: Any, **named: Any) -> Any:
        action = action_of(*arguments, **named)
        return "kms:ReEncryptFrom" if action == "kms:ReEncrypt" else action

    def dynamodb_service_context(body: bytes) -> Fields:
        return {**service_context(body), **dynamodb_conditions(body_of(body))}

    def condition_key(key: str, context: Any) -> Any:
        # For an assumed role, aws:PrincipalArn is the ARN of the role, not of the session.
        principal = context.principal_arn or ""
        if key.lower() == "aws:principalarn" and ":assumed-role/" in principal:
            name = iam_evaluator._role_name_from_assumed_arn(principal)
            role = iam._roles.get_scoped(context.principal_account, None, name)
            return (role or {}).get("Arn", principal)
        return resolve(key, context)

    iam_actions.request_tag_context = request_tag_context
    iam_actions.extract_resource_arn = extract_resource_arn
    iam_actions.extract_iam_action = extract_iam_action
    iam_actions.dynamodb_service_context = dynamodb_service_context
    iam_evaluator._resolve_condition_key = condition_key
