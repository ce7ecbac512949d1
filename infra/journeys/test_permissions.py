"""Who may do what: callers by path, each function's role by action, and nobody by the key."""

import base64
import json
import re
from functools import partial

import boto3
import pytest
from conftest import ACCOUNT, NUMBERS, ONCE, REGION, ROOT, allow, client, user

ROTATIONS = ("rewrap", "reseal", "renew")
# What each role may do, and on what; everything else in ACTIONS it may not. put, list, restore,
# rewrap, renew and policy may also Query, and rewrap Scan, on the condition that they ask for
# certain attributes alone: a simulation without a request denies that, so it is shown on the live
# tables below.
ALLOWED = {
    "put": {
        ("kms:GenerateDataKey", "key"),
        ("dynamodb:PutItem", "table"),
        ("dynamodb:PutItem", "ledger"),
    },
    "get": {
        ("kms:Decrypt", "key"),
        ("dynamodb:Query", "table"),
        ("dynamodb:Query", "index/revision"),
        ("dynamodb:Scan", "index/names"),
    },
    "list": {("dynamodb:Query", "index/names"), ("dynamodb:Scan", "index/names")},
    "delete": {
        ("dynamodb:Query", "table"),
        ("dynamodb:DeleteItem", "table"),
        ("dynamodb:Query", "ledger"),
        ("dynamodb:PutItem", "ledger"),
        ("dynamodb:DeleteItem", "ledger"),
    },
    "restore": {
        ("dynamodb:PutItem", "table"),
        ("dynamodb:Query", "ledger"),
        ("dynamodb:PutItem", "ledger"),
        ("dynamodb:DeleteItem", "ledger"),
    },
    "remind": {("dynamodb:Scan", "index/names"), ("dynamodb:PutItem", "ledger")},
    "rotate": {("lambda:InvokeFunction", f"function/{verb}") for verb in ROTATIONS},
    "rewrap": {
        ("kms:ReEncryptFrom", "key"),
        ("kms:ReEncryptTo", "key"),
        ("dynamodb:UpdateItem", "table"),
        ("dynamodb:UpdateItem", "ledger"),
        ("dynamodb:PutItem", "ledger"),
    },
    "reseal": {
        ("kms:Decrypt", "key"),
        ("kms:GenerateDataKey", "key"),
        *(
            (f"dynamodb:{action}", place)
            for action in ("Query", "Scan", "PutItem")
            for place in ("table", "ledger")
        ),
        ("dynamodb:DeleteItem", "table"),
        ("dynamodb:UpdateItem", "ledger"),
    },
    "renew": {
        ("kms:GenerateDataKey", "key"),
        ("dynamodb:PutItem", "table"),
        ("dynamodb:PutItem", "ledger"),
    },
    "policy": {("dynamodb:PutItem", "ledger")},
}
ACTIONS = [
    *(
        (f"kms:{action}", "key")
        for action in (
            *("GenerateDataKey", "GenerateDataKeyWithoutPlaintext", "Decrypt", "Encrypt"),
            *("ReEncryptFrom", "ReEncryptTo", "CreateGrant", "DescribeKey", "DisableKey"),
            *("ScheduleKeyDeletion", "PutKeyPolicy"),
        )
    ),
    *(
        (f"dynamodb:{action}", place)
        for place in ("table", "ledger")
        for action in (
            *("GetItem", "BatchGetItem", "Query", "Scan", "PutItem", "UpdateItem", "DeleteItem"),
            *("BatchWriteItem", "UpdateTable", "DeleteTable", "UpdateTimeToLive"),
        )
    ),
    *(
        (f"dynamodb:{action}", f"index/{index}")
        for index in ("names", "revision")
        for action in ("Query", "Scan")
    ),
    ("secretsmanager:GetSecretValue", "anything"),
    ("s3:GetObject", "anything"),
    ("iam:PassRole", "anything"),
    ("lambda:InvokeFunction", "anything"),
    *(("lambda:InvokeFunction", f"function/{verb}") for verb in (*ROTATIONS, "put", "get")),
    ("states:StartExecution", "anything"),
    ("events:PutEvents", "anything"),
    ("dynamodb:GetRecords", "anything"),
]
VERBS = sorted(ALLOWED)


def arn(stack, place):
    table = f"arn:aws:dynamodb:{REGION}:{ACCOUNT}:table/{stack.table}"
    return {
        "key": stack.key_arn,
        "table": table,
        "ledger": f"arn:aws:dynamodb:{REGION}:{ACCOUNT}:table/{stack.ledger}",
        "index/names": f"{table}/index/names",
        "index/revision": f"{table}/index/revision",
        "anything": "*",
        **{
            f"function/{verb}": f"arn:aws:lambda:{REGION}:{ACCOUNT}:function:{function}"
            for verb, function in stack.functions.items()
        },
    }[place]


def lines_of(verb, table):
    """The table of one role, as lines of text."""
    width = max(map(len, table))
    lines = [f"  {what:{width}} {'ALLOWED' if allowed else 'denied'}" for what, allowed in table.items()]
    return "\n".join([f"{verb}'s role:", *lines])


@pytest.mark.parametrize("verb", VERBS)
def test_each_role_has_what_its_code_calls_and_no_more(stack, iam, verb, show):
    """The whole table of role against action, by IAM's own evaluation of the deployed policies."""
    role = iam.get_role(RoleName=stack.role(verb))["Role"]["Arn"]
    table = {}
    for action, place in ACTIONS:
        result = iam.simulate_principal_policy(
            PolicySourceArn=role, ActionNames=[action], ResourceArns=[arn(stack, place)]
        )["EvaluationResults"][0]["EvalDecision"]
        table[action, place] = result == "allowed"
    named = {f"{what} on {where}": allowed for (what, where), allowed in table.items()}
    show(lines_of(verb, named))
    assert {entry for entry, allowed in table.items() if allowed} == ALLOWED[verb]


@pytest.mark.parametrize("verb", VERBS)
def test_no_role_has_a_managed_policy_or_a_star(stack, iam, verb):
    role = stack.role(verb)
    assert iam.list_attached_role_policies(RoleName=role)["AttachedPolicies"] == []
    for policy in iam.list_role_policies(RoleName=role)["PolicyNames"]:
        document = iam.get_role_policy(RoleName=role, PolicyName=policy)["PolicyDocument"]
        for statement in document["Statement"]:
            for part in ("Action", "Resource"):
                entries = statement[part]
                entries = entries if isinstance(entries, list) else [entries]
                if part == "Action":
                    assert not any("*" in entry for entry in entries)
                elif statement["Sid"] == "Log":
                    # A log group's ARN ends in its streams.
                    assert all(entry.count("*") <= 1 for entry in entries)
                else:
                    assert not any("*" in entry for entry in entries)


# What the code asks for, by the constants in shared/src. The roles allow this and nothing else.
ASKED = {
    ("put", "ReadHighestVersion"): ["store.TOP"],
    ("put", "ReadEventsAndTokens"): ["store/ledger.CHAIN", "store/ledger.TOKEN"],
    ("list", "ReadEvents"): ["store/ledger.CHAIN", "store/run.RUN"],
    ("restore", "ReadHighestVersion"): ["store.TOP"],
    ("rewrap", "ReadWrappedKeys"): ["store/walk.WRAPPING"],
    ("rewrap", "ReadDeletedVersionsAndRuns"): [
        *("store/ledger.CHAIN", "store/run.RUN", "store/walk.KEPT", "store/walk.WRAPPING"),
    ],
    ("renew", "ReadNewestVersion"): ["store.DESCRIBED"],
    ("renew", "ReadEventsPoliciesAndRuns"): [
        *("store/ledger.CHAIN", "store/ledger.TOKEN", "store/run.RUN", "store/policy.ATTRIBUTES"),
    ],
    ("policy", "ReadHighestVersion"): ["store.TOP"],
    ("policy", "ReadEventsAndPolicies"): ["store/ledger.CHAIN", "store/policy.ATTRIBUTES"],
}


def constant(place):
    """The attributes in a constant of the crate."""
    file, name = place.split(".")
    source = (ROOT / f"shared/src/{file}.rs").read_text()
    found = re.search(rf"const {name}: &\[&str\] =\s*&\[(.*?)\];", source, re.DOTALL)
    return set(re.findall(r'"(\w+)"', found[1]))


def test_a_role_may_query_the_attributes_that_its_code_asks_for_and_no_more(stack, iam):
    listed = {}
    for verb in VERBS:
        document = iam.get_role_policy(RoleName=stack.role(verb), PolicyName=verb)["PolicyDocument"]
        for statement in document["Statement"]:
            equals = statement.get("Condition", {}).get("ForAllValues:StringEquals", {})
            if "dynamodb:Attributes" in equals and "dynamodb:UpdateItem" != statement["Action"]:
                listed[verb, statement["Sid"]] = set(equals["dynamodb:Attributes"])
    asked = {where: set().union(*map(constant, places)) for where, places in ASKED.items()}
    # The attribute of an entry that keeps a deleted version.
    asked["rewrap", "ReadDeletedVersionsAndRuns"].add("row")
    assert listed == asked


def test_services_take_roles_on_behalf_of_this_account_only(stack, iam):
    """Or somebody could have EventBridge or Step Functions take a role for their own account."""
    mine = {"StringEquals": {"aws:SourceAccount": ACCOUNT}}
    trust = {}
    for page in iam.get_paginator("list_roles").paginate():
        for role in page["Roles"]:
            if role["RoleName"].startswith(f"{stack.name}-"):
                statement = role["AssumeRolePolicyDocument"]["Statement"][0]
                service = statement["Principal"]["Service"]
                trust.setdefault(service, []).append(statement.get("Condition"))
    assert trust == {
        "lambda.amazonaws.com": [None] * len(VERBS),
        "pipes.amazonaws.com": [mine],
        "scheduler.amazonaws.com": [mine, mine],
        "states.amazonaws.com": [mine],
    }


def test_a_schedule_can_do_no_more_than_start_its_target(stack, iam):
    scheduler = client("scheduler")
    remind = f"arn:aws:lambda:{REGION}:{ACCOUNT}:function:{stack.functions['remind']}"
    targets = []
    for schedule in scheduler.list_schedules()["Schedules"]:
        if not schedule["Name"].startswith(f"{stack.name}-"):
            continue
        target = scheduler.get_schedule(Name=schedule["Name"])["Target"]
        targets.append(target["Arn"])
        action = "lambda:InvokeFunction" if target["Arn"] == remind else "states:StartExecution"
        role = target["RoleArn"].split("/")[-1]
        assert iam.list_attached_role_policies(RoleName=role)["AttachedPolicies"] == []
        (policy,) = iam.list_role_policies(RoleName=role)["PolicyNames"]
        document = iam.get_role_policy(RoleName=role, PolicyName=policy)["PolicyDocument"]
        (statement,) = document["Statement"]
        allowed = statement["Effect"], statement["Action"], statement["Resource"]
        assert allowed == ("Allow", action, target["Arn"])
    assert sorted(targets) == sorted([remind, stack.machine, stack.machine])


@pytest.fixture
def as_role(iam, stack):
    """The credentials of a function's role, for clients of its own."""
    trusted = {}

    def assume(verb):
        role = stack.role(verb)
        trusted.setdefault(role, iam.get_role(RoleName=role)["Role"]["AssumeRolePolicyDocument"])
        trust = allow("sts:AssumeRole", None)
        del trust["Statement"][0]["Resource"]
        trust["Statement"][0]["Principal"] = {"AWS": f"arn:aws:iam::{ACCOUNT}:root"}
        iam.update_assume_role_policy(RoleName=role, PolicyDocument=json.dumps(trust))
        keys = client("sts").assume_role(
            RoleArn=f"arn:aws:iam::{ACCOUNT}:role/{role}", RoleSessionName="journey"
        )["Credentials"]
        return boto3.Session(
            keys["AccessKeyId"], keys["SecretAccessKey"], keys["SessionToken"], REGION
        )

    yield assume
    for role, trust in trusted.items():
        iam.update_assume_role_policy(RoleName=role, PolicyDocument=json.dumps(trust))


def attempts(stack, session, row):
    """Every call that somebody with a function's credentials would like to make."""
    kms, table = session.client("kms", config=ONCE), stack.table
    dynamodb = session.client("dynamodb", config=ONCE)
    key = {"name": {"S": row["name"]}, "version": {"S": row["version"]}}
    by_name = {
        "KeyConditionExpression": "#name = :name",
        "ExpressionAttributeNames": {"#name": "name"},
        "ExpressionAttributeValues": {":name": key["name"]},
    }
    highest = {
        **by_name,
        "ExpressionAttributeNames": {"#name": "name", "#version": "version"},
        "ProjectionExpression": "#version",
        "Select": "SPECIFIC_ATTRIBUTES",
    }
    # What tells whether the highest version is still the one that the ledger knows.
    described = {
        **highest,
        "ExpressionAttributeNames": {
            "#name": "name", "#version": "version", "#hmac": "hmac", "#end": "expires_at"
        },
        "ProjectionExpression": "#version, #hmac, #end",
    }
    stolen = {
        **highest,
        "ExpressionAttributeNames": {"#name": "name", "#contents": "contents"},
        "ProjectionExpression": "#contents",
    }
    # Of the ledger: an event, what is in a deleted version, and that under an event's attributes.
    event = {
        **by_name,
        "TableName": stack.ledger,
        "ProjectionExpression": "#name, entry, who, #hash",
        "ExpressionAttributeNames": {"#name": "name", "#hash": "hash"},
        "Select": "SPECIFIC_ATTRIBUTES",
    }
    buried = {**event, "ProjectionExpression": "#name, #row.contents"}
    buried["ExpressionAttributeNames"] = {"#name": "name", "#row": "row"}
    answered = {**event, "ProjectionExpression": "answer, fingerprint"}
    answered["ExpressionAttributeNames"] = {"#name": "name"}
    entry = {"name": {"S": row["name"]}, "entry": {"S": "e"}}
    run = {"name": {"S": "/rotation/mine"}, "entry": {"S": "part#"}}
    policy = {"name": {"S": "/policies"}, "entry": {"S": "mine"}}
    token = {"name": {"S": "/token/mine"}, "entry": {"S": "mine"}}
    places = {"a run": run, "a policy": policy, "a token": token}

    def update(of, key, path, **names):
        call = {"TableName": of, "Key": key, "UpdateExpression": f"SET {path} = :value"}
        if names:
            call["ExpressionAttributeNames"] = names
        call["ExpressionAttributeValues"] = {":value": {"S": "x"}}
        return partial(dynamodb.update_item, **call)

    wrapping = {
        **by_name,
        "ExpressionAttributeNames": {"#name": "name", "#key": "key"},
        "ProjectionExpression": "#name, #key",
        "Select": "SPECIFIC_ATTRIBUTES",
    }
    wrapped = base64.b64decode(row["key"])
    return {
        "wrap": lambda: kms.generate_data_key(KeyId=stack.key_arn, NumberOfBytes=64),
        "unwrap": lambda: kms.decrypt(CiphertextBlob=wrapped, KeyId=stack.key_arn),
        "encrypt": lambda: kms.encrypt(KeyId=stack.key_arn, Plaintext=b"x"),
        "re-encrypt": lambda: kms.re_encrypt(
            CiphertextBlob=wrapped, DestinationKeyId=stack.key_arn
        ),
        "write": lambda: dynamodb.put_item(
            TableName=table, Item={**key, "version": {"S": f"{8:019}"}}
        ),
        "touch": lambda: dynamodb.update_item(TableName=table, Key=key),
        "change a wrapped key": update(table, key, "#key", **{"#key": "key"}),
        "change a comment": update(table, key, "#comment", **{"#comment": "comment"}),
        # With these two, a row could lose its context and be wrapped under another.
        "change a seal": update(table, key, "seal"),
        "change a context": update(table, key, "#context", **{"#context": "context"}),
        "query a wrapped key": lambda: dynamodb.query(TableName=table, **wrapping),
        "delete": lambda: dynamodb.delete_item(TableName=table, Key=key),
        "read an item": lambda: dynamodb.get_item(TableName=table, Key=key),
        "query whole rows": lambda: dynamodb.query(TableName=table, **by_name),
        "query the highest version": lambda: dynamodb.query(TableName=table, **highest),
        "query what the highest version is": lambda: dynamodb.query(
            TableName=table, **described
        ),
        "query a ciphertext": lambda: dynamodb.query(TableName=table, **stolen),
        "query revisions": lambda: dynamodb.query(
            TableName=table, IndexName="revision", **by_name
        ),
        "query names": lambda: dynamodb.query(TableName=table, IndexName="names", **by_name),
        "scan": lambda: dynamodb.scan(TableName=table),
        "scan names": lambda: dynamodb.scan(TableName=table, IndexName="names"),
        "query events": lambda: dynamodb.query(**event),
        "query tokens": lambda: dynamodb.query(**answered),
        "query a deleted ciphertext": lambda: dynamodb.query(**buried),
        "query the whole ledger": lambda: dynamodb.query(TableName=stack.ledger, **by_name),
        "read an entry": lambda: dynamodb.get_item(TableName=stack.ledger, Key=entry),
        "scan the ledger": lambda: dynamodb.scan(TableName=stack.ledger),
        "write the ledger": lambda: dynamodb.put_item(TableName=stack.ledger, Item=entry),
        "touch the ledger": lambda: dynamodb.update_item(TableName=stack.ledger, Key=entry),
        "change an event": update(stack.ledger, entry, "who"),
        "change a deleted version": update(stack.ledger, entry, "#row", **{"#row": "row"}),
        **{
            f"write {what}": partial(dynamodb.put_item, TableName=stack.ledger, Item=item)
            for what, item in places.items()
        },
        **{
            f"change {what}": update(stack.ledger, item, "#row", **{"#row": "row"})
            for what, item in places.items()
        },
        **{
            f"delete {what}": partial(dynamodb.delete_item, TableName=stack.ledger, Key=item)
            for what, item in places.items()
        },
        "delete from the ledger": lambda: dynamodb.delete_item(TableName=stack.ledger, Key=entry),
        "write within a transaction": lambda: dynamodb.transact_write_items(
            TransactItems=[
                {"Put": {"TableName": table, "Item": {**key, "version": {"S": f"{9:019}"}}}}
            ]
        ),
        "delete within a transaction": lambda: dynamodb.transact_write_items(
            TransactItems=[{"Delete": {"TableName": table, "Key": key}}]
        ),
        **{
            f"write {what} within a transaction": partial(
                dynamodb.transact_write_items,
                TransactItems=[
                    {"Put": {"TableName": stack.ledger, "Item": entry}},
                    {"Put": {"TableName": stack.ledger, "Item": item}},
                ],
            )
            for what, item in places.items()
        },
    }


# What the roles that read rows in the table whole can query.
WHOLE = {
    "query whole rows", "query a wrapped key", "query the highest version",
    "query what the highest version is", "query a ciphertext",
}
# What the roles that move versions to the ledger and back can do there. Not policies, runs, and
# tokens, which lie in the ledger too.
LEDGER = {
    "query events", "query tokens", "query a deleted ciphertext", "query the whole ledger",
    "write the ledger", "delete from the ledger",
}


def writes(*places):
    """The writes of these places in the ledger, alone and within a transaction."""
    return {f"write {place}{how}" for place in places for how in ("", " within a transaction")}


@pytest.mark.parametrize(
    ("verb", "possible"),
    [
        (
            "put",
            {"wrap", "write", "write within a transaction", "query the highest version",
             "query what the highest version is", "query events", "query tokens",
             "write the ledger", *writes("a token")},
        ),
        ("get", {"unwrap", *WHOLE, "query revisions", "scan names"}),
        ("list", {"query names", "scan names", "query events"}),
        (
            "delete",
            {"delete", "delete within a transaction", *WHOLE, *LEDGER, "delete a policy"},
        ),
        (
            "restore",
            {"write", "write within a transaction", "query the highest version",
             "query what the highest version is", *LEDGER},
        ),
        ("remind", {"scan names", "write the ledger"}),
        ("rotate", set()),
        (
            "rewrap",
            {"re-encrypt", "touch", "change a wrapped key", "query a wrapped key",
             "query the highest version", "query events", "query a deleted ciphertext",
             "touch the ledger", "change a deleted version", "write a run"},
        ),
        (
            "reseal",
            {"wrap", "unwrap", "write", "write within a transaction", "delete",
             "delete within a transaction", *WHOLE, "scan", "scan the ledger", "query events",
             "query tokens", "query a deleted ciphertext", "query the whole ledger",
             "write the ledger", "touch the ledger", "change an event",
             "change a deleted version", *writes("a run")},
        ),
        (
            "renew",
            {"wrap", "write", "write within a transaction", "query the highest version",
             "query what the highest version is", "query events", "query tokens",
             "write the ledger", *writes("a run", "a policy", "a token")},
        ),
        (
            "policy",
            {"query the highest version", "query what the highest version is", "query events",
             "write the ledger", *writes("a policy")},
        ),
    ],
)
def test_whoever_steals_a_functions_credentials_can_do_no_more_than_it(
    stack, as_role, name, verb, possible, show
):
    stack.put(name, "s")
    done = set()
    tried = attempts(stack, as_role(verb), stack.row(name))
    for what, attempt in tried.items():
        try:
            attempt()
            done.add(what)
        except Exception as error:
            assert error.response["Error"]["Code"] == "AccessDeniedException", (what, error)
    show(lines_of(verb, {what: what in done for what in tried}))
    assert done == possible


def test_a_data_key_that_was_moved_to_another_context_opens_nothing(stack, as_role, name):
    """Whoever may re-encrypt chooses the new context; the row says which one it was put with."""
    context, prefix, name = {"team": "payments"}, name, f"{name}/db"
    stack.put(name, "s", context=context)
    row = stack.row(name)
    kms = as_role("rewrap").client("kms", config=ONCE)
    for chosen in ({}, {"team": "mine"}):
        moved = kms.re_encrypt(
            CiphertextBlob=base64.b64decode(row["key"]),
            SourceEncryptionContext=context,
            DestinationKeyId=stack.key_arn,
            DestinationEncryptionContext=chosen,
        )["CiphertextBlob"]
        stack.rows.put_item(Item={**row, "key": base64.b64encode(moved).decode()})
        for _, answer in stack.both("get", {"name": name, "context": chosen}):
            assert answer.code == "Forbidden"
            assert '"team"' in answer.message and "payments" not in answer.message
        for _, answer in stack.both("get", {"prefix": prefix, "context": chosen}):
            assert answer.code == "Forbidden"
        assert stack.invoke("get", {"name": name, "context": context}).code == "Integrity"
    stack.rows.put_item(Item=row)
    assert stack.get(name, context=context)["secret"] == "s"


def test_the_names_index_has_nothing_to_open(stack, as_role, name):
    stack.put(name, "s", comment="c", context={"a": "b"}, ttl=60)
    items = as_role("list").client("dynamodb", config=ONCE).query(
        TableName=stack.table,
        IndexName="names",
        KeyConditionExpression="#name = :name",
        ExpressionAttributeNames={"#name": "name"},
        ExpressionAttributeValues={":name": {"S": name}},
    )["Items"]
    described = {"name", "version", "comment", "context", "created_at", "expires_at", "revision"}
    assert [set(item) for item in items] == [described]


def test_the_key_policy_is_the_last_word(stack, iam, kms, name):
    """An administrator whose own policy allows everything."""
    stack.put(name, "s")
    keys = user(iam, f"administrator-{next(NUMBERS)}", allow("*", "*"))
    administrator = client("kms", keys)
    wrapped = base64.b64decode(stack.row(name)["key"])
    arn = stack.key_arn
    for attempt in (
        lambda: administrator.generate_data_key(KeyId=arn, NumberOfBytes=64),
        lambda: administrator.decrypt(CiphertextBlob=wrapped),
        lambda: administrator.encrypt(KeyId=arn, Plaintext=b"x"),
        lambda: administrator.generate_data_key_without_plaintext(KeyId=arn, NumberOfBytes=64),
        lambda: administrator.re_encrypt(CiphertextBlob=wrapped, DestinationKeyId=arn),
        lambda: administrator.create_grant(
            KeyId=arn, GranteePrincipal=f"arn:aws:iam::{ACCOUNT}:user/x", Operations=["Decrypt"]
        ),
    ):
        with pytest.raises(administrator.exceptions.ClientError) as refused:
            attempt()
        assert refused.value.response["Error"]["Code"] == "AccessDeniedException"
    # Administration stays possible, or nobody could ever change the policy.
    assert administrator.get_key_policy(KeyId=arn, PolicyName="default")["Policy"]
    assert administrator.describe_key(KeyId=arn)["KeyMetadata"]["Enabled"]


def test_a_caller_gets_what_the_path_in_its_policy_covers(stack, caller, name):
    for prefix in ("dev", "prod", "development"):
        stack.put(f"{prefix}/{name}", f"{prefix} value")
    dev = caller("GET/secrets/dev/*")
    got = stack.http("GET", f"/secrets/dev/{name}", credentials=dev)
    assert (got.status, got.body["secret"]) == (200, "dev value")
    for method, path in (
        ("GET", f"/secrets/prod/{name}"),
        ("GET", f"/secrets/development/{name}"),
        ("PUT", f"/secrets/dev/{name}"),
        ("GET", "/names"),
        ("GET", "/names/dev"),
        ("GET", f"/versions/dev/{name}"),
        ("GET", f"/history/dev/{name}"),
        ("GET", "/bundle"),
        ("GET", "/bundle/dev"),
        ("PUT", "/bundle/dev"),
        ("DELETE", f"/secrets/dev/{name}"),
        ("POST", f"/restore/dev/{name}"),
        ("POST", f"/rotate/dev/{name}"),
        ("PUT", f"/policies/dev/{name}"),
        ("DELETE", f"/policies/dev/{name}"),
        ("GET", f"/policies/dev/{name}"),
        ("GET", "/reports/rewrap"),
        ("GET", f"/secrets/~/dev/{name}"),
    ):
        body = {"secret": "x"} if method == "PUT" else None
        answer = stack.http(method, path, body=body, credentials=dev)
        assert answer.status == 403, (method, path)
    # An escaped slash is a slash when the policy is asked, and dots are just characters.
    assert stack.http("GET", f"/secrets/prod%2F{name}", credentials=dev, quote=False).status == 403
    escaped = stack.http("GET", f"/secrets/dev%2F{name}", credentials=dev, quote=False)
    assert escaped.body["secret"] == "dev value"
    assert len(stack.versions_of(f"dev/{name}")) == 1


def test_a_caller_lists_what_the_path_in_its_policy_covers(stack, caller, name):
    stack.put(f"{name}/a", "1")
    stack.put(f"{name}-b", "2")
    lister = caller(f"GET/names/{name}")
    answer = stack.http("GET", f"/names/{name}", credentials=lister)
    assert [entry["name"] for entry in answer.body["secrets"]] == [f"{name}/a"]
    assert stack.http("GET", f"/names/{name}-b", credentials=lister).status == 403
    assert stack.http("GET", "/names", credentials=lister).status == 403
    # A page's `next` is good on the pages one may ask for, and nowhere else.
    assert stack.http("GET", "/names", query="next=e30", credentials=lister).status == 403


def test_unsigned_and_wrongly_signed_calls_are_refused(stack, iam, name):
    stack.put(name, "s")
    keys = user(iam, f"nobody-{next(NUMBERS)}", allow("execute-api:Invoke", "*"))
    keys.secret_key = "wrong" + keys.secret_key[5:]
    for method, path in (
        ("GET", f"/secrets/{name}"),
        ("PUT", f"/secrets/{name}"),
        ("GET", "/names"),
        ("GET", f"/names/{name}"),
        ("GET", f"/versions/{name}"),
        ("GET", f"/history/{name}"),
        ("GET", "/bundle"),
        ("GET", f"/bundle/{name}"),
        ("PUT", f"/bundle/{name}"),
        ("DELETE", f"/secrets/{name}"),
        ("POST", f"/restore/{name}"),
        ("POST", f"/rotate/{name}"),
        ("PUT", f"/policies/{name}"),
        ("GET", "/reports/renew"),
    ):
        for credentials in (None, keys):
            assert stack.http(method, path, credentials=credentials).status == 403, (method, path)
    assert len(stack.versions_of(name)) == 1


def test_an_invoker_needs_the_function_in_its_policy(stack, iam, name):
    stack.put(name, "s")
    arn = f"arn:aws:lambda:{REGION}:{ACCOUNT}:function:{stack.functions['get']}"
    reader = user(iam, f"reader-{next(NUMBERS)}", allow("lambda:InvokeFunction", arn))
    assert stack.invoke("get", {"name": name}, reader).body["secret"] == "s"
    with pytest.raises(Exception, match="AccessDenied"):
        stack.invoke("put", {"name": name, "secret": "x"}, reader)
