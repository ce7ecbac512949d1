"""First deployments: what a failed one leaves behind, and what the parameters do."""

import os
import subprocess
from typing import Any

import pytest

from adoption import adopt
from conftest import ROOT, Stack, client

NAME = f"trial-{os.getpid()}"
TABLE, ALIAS = f"{NAME}-store", f"alias/{NAME}"


def deploy(*options: str, name: str = NAME, **overrides: str) -> subprocess.CompletedProcess[str]:
    """Deploys a new stack that names no other client."""
    parameters = {
        "Architecture": "x86_64",
        "TableName": TABLE,
        "KeyAlias": ALIAS,
        "ClientPrincipalArns": '""',
        "DeletionProtection": "false",
        "RewrapSchedule": '""',
        **overrides,
    }
    command = [str(ROOT / "infra/local/deploy"), "--stack-name", name, *options]
    command += ["--parameter-overrides", *(f"{key}={value}" for key, value in parameters.items())]
    return subprocess.run(command, capture_output=True, text=True)


def events(name: str = NAME) -> list[tuple[str, str]]:
    """Returns the events of the stack's resources, oldest first, as (resource, status)."""
    pages = client("cloudformation").get_paginator("describe_stack_events")
    pages = pages.paginate(StackName=name)
    stack_events = [event for page in pages for event in page["StackEvents"]]
    return [
        (event["LogicalResourceId"], event["ResourceStatus"]) for event in reversed(stack_events)
    ]


@pytest.fixture(scope="module")
def failed() -> list[tuple[str, str]]:
    """Deploys a stack with a policy that cannot be attached. Deletes it, returns its events."""
    built = ROOT / ".aws-sam/build"
    template, failing = (built / "template.yaml").read_text(), built / "failing.yaml"
    assert template.count("- Ref: RotateRole\n") == 1
    failing.write_text(template.replace("- Ref: RotateRole\n", "- no-such-role\n"))
    try:
        # By default, SAM looks for the configuration beside the template.
        deployment = deploy(
            "--template-file", str(failing), "--config-file", str(ROOT / "samconfig.toml")
        )
    finally:
        failing.unlink()
    assert "ROLLBACK" in deployment.stderr, deployment.stdout + deployment.stderr
    history = events()
    cloudformation = client("cloudformation")
    cloudformation.delete_stack(StackName=NAME)
    cloudformation.get_waiter("stack_delete_complete").wait(
        StackName=NAME, WaiterConfig={"Delay": 1, "MaxAttempts": 60}
    )
    return history


@pytest.fixture(scope="module")
def trial(failed: list[tuple[str, str]]) -> Stack:
    """Deploys the same stack again, after the deployment that failed."""
    deployment = deploy()
    assert deployment.returncode == 0, deployment.stdout + deployment.stderr
    return Stack(NAME)


def legacy_items(stack: Stack) -> str:
    """Returns how the get function is configured to treat legacy rows."""
    function = stack.functions["get"]
    described = client("lambda").get_function_configuration(FunctionName=function)
    return described["Environment"]["Variables"]["COFFER_LEGACY_ITEMS"]


def processed(stack: Stack) -> dict[str, dict[str, Any]]:
    """Returns the resources of the template that SAM generated, by type and logical ID."""
    template = client("cloudformation").get_template(
        StackName=stack.name, TemplateStage="Processed"
    )["TemplateBody"]
    by_type: dict[str, dict[str, Any]] = {}
    for name, resource in template["Resources"].items():
        by_type.setdefault(resource["Type"], {})[name] = resource
    return by_type


def test_a_failed_first_deployment_does_not_create_the_secrets_table(
    failed: list[tuple[str, str]],
) -> None:
    assert ("RewrapFunction", "CREATE_COMPLETE") in failed
    assert ("RotatePolicy", "CREATE_FAILED") in failed
    assert not [event for event in failed if event[0] == "SecretsTable"]


def test_an_existing_alias_fails_before_retained_resources_are_created(trial: Stack) -> None:
    name = f"{NAME}-second"
    done = deploy(name=name, TableName=f"{TABLE}-second")
    assert done.returncode != 0
    history = events(name)
    assert ("SecretsKeyAlias", "CREATE_FAILED") in history, history
    assert not [event for event in history if event[0] in ("LedgerTable", "SecretsTable", "Api")]
    client("cloudformation").delete_stack(StackName=name)


def test_the_secrets_table_is_created_last(trial: Stack) -> None:
    assert trial.table == TABLE
    created = [name for name, status in events() if status == "CREATE_COMPLETE" and name != NAME]
    assert created[-1] == "SecretsTable"
    # The stack works, even though nothing depends on the table.
    trial.put("a", "s")
    assert trial.get("a")["secret"] == "s"


def test_pipes_are_created_after_their_policy_and_slow_resources(trial: Stack) -> None:
    created = [name for name, status in events() if status == "CREATE_COMPLETE"]
    for pipe in ("ChangedPipe", "ExpiringPipe"):
        for before in ("EventsPolicy", "ApiApiGatewayDefaultStage", "RotationStateMachine"):
            assert created.index(before) < created.index(pipe), (before, pipe)


def test_legacy_rows_are_refused_unless_another_client_can_write_the_table(
    stack: Stack, trial: Stack
) -> None:
    for deployed in (stack, trial):
        described = client("cloudformation").describe_stacks(StackName=deployed.name)["Stacks"][0]
        values = {
            parameter["ParameterKey"]: parameter["ParameterValue"]
            for parameter in described["Parameters"]
        }
        assert values["LegacyItems"] == "auto"
    # The parameters of `stack` name another client, those of `trial` do not.
    assert (legacy_items(stack), legacy_items(trial)) == ("read", "refuse")
    trial.put("stripped", "s")
    key = {"name": "stripped", "version": f"{1:019}"}
    trial.rows.update_item(
        Key=key,
        UpdateExpression="REMOVE seal, #context, revision",
        ExpressionAttributeNames={"#context": "context"},
    )
    assert trial.invoke("get", {"name": "stripped"}).code == "Integrity"
    assert legacy_items(Stack(adopt("auto"))) == "read"


def test_tables_have_deletion_protection_unless_a_parameter_turns_it_off(
    stack: Stack, trial: Stack
) -> None:
    dynamodb = client("dynamodb")
    for deployed, protected in ((stack, True), (trial, False)):
        for table in (deployed.table, deployed.ledger):
            described = dynamodb.describe_table(TableName=table)["Table"]
            assert described["DeletionProtectionEnabled"] is protected, table


def test_access_logs_are_in_vendedlogs_where_the_resource_policy_does_not_grow(
    stack: Stack, trial: Stack
) -> None:
    for deployed in (stack, trial):
        (stage,) = client("apigatewayv2").get_stages(ApiId=deployed.api_id)["Items"]
        group = stage["AccessLogSettings"]["DestinationArn"].split(":log-group:")[1]
        assert group.startswith(f"/aws/vendedlogs/{deployed.name}/api-")


def test_the_api_is_throttled_and_its_functions_can_have_a_concurrency_limit(stack: Stack) -> None:
    # The local AWS enforces neither limit.
    resources = processed(stack)
    (stage,) = resources["AWS::ApiGatewayV2::Stage"].values()
    assert stage["Properties"]["DefaultRouteSettings"] == {
        "ThrottlingRateLimit": {"Ref": "ApiThrottlingRateLimit"},
        "ThrottlingBurstLimit": {"Ref": "ApiThrottlingBurstLimit"},
    }
    behind = {
        permission["Properties"]["FunctionName"]["Ref"]
        for permission in resources["AWS::Lambda::Permission"].values()
    }
    limited = {
        name
        for name, function in resources["AWS::Lambda::Function"].items()
        if "ReservedConcurrentExecutions" in function["Properties"]
    }
    assert behind == limited
    assert len(limited) == 7


def test_the_state_machine_uses_the_partition_of_the_stack(stack: Stack) -> None:
    described = client("stepfunctions").describe_state_machine(stateMachineArn=stack.machine)
    assert "arn:aws:states:::lambda:invoke" in described["definition"]
    assert "${" not in described["definition"]
    assert "arn:aws:" not in (ROOT / "infra/rotation.asl.json").read_text()
