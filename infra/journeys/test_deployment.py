"""The first deployment of a stack: what a failed one leaves behind, and what the parameters do."""

import os
import subprocess

import pytest
from adoption import adopt
from conftest import ROOT, Stack, client

NAME = f"trial-{os.getpid()}"
TABLE, ALIAS = f"{NAME}-store", f"alias/{NAME}"


def deploy(*options, name=NAME, **more):
    """A first deployment of a stack that no other client may use."""
    parameters = {
        "Architecture": "x86_64",
        "TableName": TABLE,
        "KeyAlias": ALIAS,
        "ClientPrincipalArns": '""',
        "DeletionProtection": "false",
        "RewrapSchedule": '""',
        **more,
    }
    command = [ROOT / "infra/local/deploy", "--stack-name", name, *options]
    command += ["--parameter-overrides", *(f"{key}={value}" for key, value in parameters.items())]
    return subprocess.run(command, capture_output=True, text=True)


def events(name=NAME):
    """What happened to the resources of the stack, oldest first: (resource, status)."""
    pages = client("cloudformation").get_paginator("describe_stack_events")
    pages = pages.paginate(StackName=name)
    told = [event for page in pages for event in page["StackEvents"]]
    return [(event["LogicalResourceId"], event["ResourceStatus"]) for event in reversed(told)]


@pytest.fixture(scope="module")
def failed():
    """What happened in a deployment in which one policy could not be attached. The stack is gone."""
    built = ROOT / ".aws-sam/build"
    template, failing = (built / "template.yaml").read_text(), built / "failing.yaml"
    assert template.count("- Ref: RotateRole\n") == 1
    failing.write_text(template.replace("- Ref: RotateRole\n", "- no-such-role\n"))
    try:
        # The configuration is looked for beside the template.
        done = deploy("--template-file", failing, "--config-file", ROOT / "samconfig.toml")
    finally:
        failing.unlink()
    assert "ROLLBACK" in done.stderr, done.stdout + done.stderr
    happened = events()
    cloudformation = client("cloudformation")
    cloudformation.delete_stack(StackName=NAME)
    cloudformation.get_waiter("stack_delete_complete").wait(
        StackName=NAME, WaiterConfig={"Delay": 1, "MaxAttempts": 60}
    )
    return happened


@pytest.fixture(scope="module")
def trial(failed):
    """The same stack, deployed after the deployment that failed."""
    done = deploy()
    assert done.returncode == 0, done.stdout + done.stderr
    return Stack(NAME)


def legacy_items(stack):
    """What the get function is configured to do with rows without a seal."""
    function = stack.functions["get"]
    described = client("lambda").get_function_configuration(FunctionName=function)
    return described["Environment"]["Variables"]["COFFER_LEGACY_ITEMS"]


def processed(stack):
    """The resources of the stack as SAM wrote them, by their types."""
    template = client("cloudformation").get_template(
        StackName=stack.name, TemplateStage="Processed"
    )["TemplateBody"]
    by_type = {}
    for name, resource in template["Resources"].items():
        by_type.setdefault(resource["Type"], {})[name] = resource
    return by_type


def test_a_failed_first_deployment_creates_no_table_of_a_fixed_name(failed):
    assert ("RewrapFunction", "CREATE_COMPLETE") in failed
    assert ("RotatePolicy", "CREATE_FAILED") in failed
    assert not [event for event in failed if event[0] == "SecretsTable"]


def test_an_alias_that_is_taken_is_found_out_before_anything_that_stays(trial):
    name = f"{NAME}-second"
    done = deploy(name=name, TableName=f"{TABLE}-second")
    assert done.returncode != 0
    happened = events(name)
    assert ("SecretsKeyAlias", "CREATE_FAILED") in happened, happened
    assert not [event for event in happened if event[0] in ("LedgerTable", "SecretsTable", "Api")]
    client("cloudformation").delete_stack(StackName=name)


def test_the_table_is_created_after_everything_that_can_fail(trial):
    assert trial.table == TABLE
    created = [name for name, status in events() if status == "CREATE_COMPLETE" and name != NAME]
    assert created[-1] == "SecretsTable"
    # And works nonetheless.
    trial.put("a", "s")
    assert trial.get("a")["secret"] == "s"


def test_a_pipe_is_created_after_its_policy_and_after_what_takes_long(trial):
    created = [name for name, status in events() if status == "CREATE_COMPLETE"]
    for pipe in ("ChangedPipe", "ExpiringPipe"):
        for before in ("EventsPolicy", "ApiApiGatewayDefaultStage", "RotationStateMachine"):
            assert created.index(before) < created.index(pipe), (before, pipe)


def test_legacy_items_are_read_only_where_somebody_else_writes_the_table(stack, trial):
    for deployed in (stack, trial):
        described = client("cloudformation").describe_stacks(StackName=deployed.name)["Stacks"][0]
        values = {each["ParameterKey"]: each["ParameterValue"] for each in described["Parameters"]}
        assert values["LegacyItems"] == "auto"
    # This one names a client, the trial none.
    assert (legacy_items(stack), legacy_items(trial)) == ("read", "refuse")
    trial.put("stripped", "s")
    key = {"name": "stripped", "version": f"{1:019}"}
    trial.rows.update_item(Key=key, UpdateExpression="REMOVE seal, #context, revision",
                           ExpressionAttributeNames={"#context": "context"})
    assert trial.invoke("get", {"name": "stripped"}).code == "Integrity"
    assert legacy_items(Stack(adopt("auto"))) == "read"


def test_tables_are_protected_from_deletion_unless_a_parameter_says_otherwise(stack, trial):
    dynamodb = client("dynamodb")
    for deployed, protected in ((stack, True), (trial, False)):
        for table in (deployed.table, deployed.ledger):
            described = dynamodb.describe_table(TableName=table)["Table"]
            assert described["DeletionProtectionEnabled"] is protected, table


def test_the_access_log_is_where_the_log_resource_policy_does_not_grow(stack, trial):
    for deployed in (stack, trial):
        (stage,) = client("apigatewayv2").get_stages(ApiId=deployed.api_id)["Items"]
        group = stage["AccessLogSettings"]["DestinationArn"].split(":log-group:")[1]
        assert group.startswith(f"/aws/vendedlogs/{deployed.name}/api-")


def test_the_api_has_a_throttle_and_each_function_behind_it_can_have_a_limit(stack):
    # The local AWS enforces neither.
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


def test_the_state_machine_names_the_partition_of_the_stack(stack):
    described = client("stepfunctions").describe_state_machine(stateMachineArn=stack.machine)
    assert "arn:aws:states:::lambda:invoke" in described["definition"]
    assert "${" not in described["definition"]
    assert "arn:aws:" not in (ROOT / "infra/rotation.asl.json").read_text()
