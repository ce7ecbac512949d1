"""The roles of functions and schedules allow exactly the actions that their code needs."""

import re
from typing import Any

import pytest

from conftest import ACCOUNT, REGION, ROOT, Show, Stack, client
from roles import role_table

ROTATIONS = ("rewrap", "reseal", "renew")
# The actions that each role allows, and on which resource. It denies every other one of ACTIONS.
# put, list, restore, rewrap, renew and policy also allow Query, and rewrap allows Scan, if the
# request names only certain attributes. A simulation has no request and denies these;
# test_stolen_credentials.py covers them.
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


def arn(stack: Stack, place: str) -> str:
    """Returns the ARN of a resource in ALLOWED or ACTIONS."""
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


@pytest.mark.parametrize("verb", VERBS)
def test_each_role_allows_exactly_the_actions_of_its_code(
    stack: Stack, iam: Any, verb: str, show: Show
) -> None:
    """Compares all roles and actions, by IAM's simulation of the deployed policies."""
    role = iam.get_role(RoleName=stack.role(verb))["Role"]["Arn"]
    decisions = {}
    for action, place in ACTIONS:
        result = iam.simulate_principal_policy(
            PolicySourceArn=role, ActionNames=[action], ResourceArns=[arn(stack, place)]
        )["EvaluationResults"][0]["EvalDecision"]
        decisions[action, place] = result == "allowed"
    named = {f"{what} on {where}": allowed for (what, where), allowed in decisions.items()}
    show(role_table(verb, named))
    assert {entry for entry, allowed in decisions.items() if allowed} == ALLOWED[verb]


@pytest.mark.parametrize("verb", VERBS)
def test_no_role_has_a_managed_policy_or_a_wildcard(stack: Stack, iam: Any, verb: str) -> None:
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
                    # The ARN of a log group ends with a wildcard for its streams.
                    assert all(entry.count("*") <= 1 for entry in entries)
                else:
                    assert not any("*" in entry for entry in entries)


# The attributes that the code reads, as constants in shared/src. The roles allow exactly these.
READ = {
    ("put", "ReadHighestVersion"): ["store/secrets_table.TOP"],
    ("put", "ReadEventsAndTokens"): ["store/ledger.CHAIN", "store/tokens.TOKEN"],
    ("list", "ReadEvents"): ["store/ledger.CHAIN", "store/runs.RUN"],
    ("restore", "ReadHighestVersion"): ["store/secrets_table.TOP"],
    ("rewrap", "ReadWrappedKeys"): ["store/scan.WRAPPING"],
    ("rewrap", "ReadDeletedVersionsAndRuns"): [
        *("store/ledger.CHAIN", "store/runs.RUN", "store/scan.KEPT", "store/scan.WRAPPING"),
    ],
    ("renew", "ReadNewestVersion"): ["store/secrets_table.DESCRIBED"],
    ("renew", "ReadEventsPoliciesAndRuns"): [
        *(
            "store/ledger.CHAIN",
            "store/tokens.TOKEN",
            "store/runs.RUN",
            "store/policies.ATTRIBUTES",
        ),
    ],
    ("policy", "ReadHighestVersion"): ["store/secrets_table.TOP"],
    ("policy", "ReadEventsAndPolicies"): ["store/ledger.CHAIN", "store/policies.ATTRIBUTES"],
}


def constant(place: str) -> set[str]:
    """Returns the attributes that a constant of the crate lists."""
    file, name = place.split(".")
    source = (ROOT / f"shared/src/{file}.rs").read_text()
    found = re.search(rf"const {name}: &\[&str\] =\s*&\[(.*?)\];", source, re.DOTALL)
    assert found
    return set(re.findall(r'"(\w+)"', found[1]))


def test_each_role_can_query_exactly_the_attributes_of_its_code(stack: Stack, iam: Any) -> None:
    listed: dict[tuple[str, str], set[str]] = {}
    for verb in VERBS:
        document = iam.get_role_policy(RoleName=stack.role(verb), PolicyName=verb)["PolicyDocument"]
        for statement in document["Statement"]:
            equals = statement.get("Condition", {}).get("ForAllValues:StringEquals", {})
            if "dynamodb:Attributes" in equals and statement["Action"] != "dynamodb:UpdateItem":
                listed[verb, statement["Sid"]] = set(equals["dynamodb:Attributes"])
    read = {where: set().union(*map(constant, places)) for where, places in READ.items()}
    # The attribute that holds a deleted version.
    read["rewrap", "ReadDeletedVersionsAndRuns"].add("row")
    assert listed == read


def test_services_can_assume_roles_only_on_behalf_of_this_account(stack: Stack, iam: Any) -> None:
    """Otherwise, another account could make a service assume a role of this one."""
    this_account = {"StringEquals": {"aws:SourceAccount": ACCOUNT}}
    trust: dict[str, list[Any]] = {}
    for page in iam.get_paginator("list_roles").paginate():
        for role in page["Roles"]:
            if role["RoleName"].startswith(f"{stack.name}-"):
                statement = role["AssumeRolePolicyDocument"]["Statement"][0]
                service = statement["Principal"]["Service"]
                trust.setdefault(service, []).append(statement.get("Condition"))
    assert trust == {
        "lambda.amazonaws.com": [None] * len(VERBS),
        "pipes.amazonaws.com": [this_account],
        "scheduler.amazonaws.com": [this_account, this_account],
        "states.amazonaws.com": [this_account],
    }


def test_a_schedule_can_only_start_its_target(stack: Stack, iam: Any) -> None:
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
