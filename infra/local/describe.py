"""Prints .local/env: the environment variables to call the locally deployed stack with."""

import shlex
import sys

import boto3

STACK = "coffer"
OUTPUTS = {
    "TableName": "COFFER_TABLE",
    "LedgerName": "COFFER_LEDGER",
    "KeyArn": "COFFER_KEY_ARN",
    "RotationStateMachineArn": "COFFER_ROTATION_STATE_MACHINE",
}


def main(endpoint: str) -> None:
    stack = boto3.client("cloudformation").describe_stacks(StackName=STACK)["Stacks"][0]
    outputs = {output["OutputKey"]: output["OutputValue"] for output in stack["Outputs"]}
    variables = {
        "AWS_ENDPOINT_URL": endpoint,
        "AWS_ACCESS_KEY_ID": "test",
        "AWS_SECRET_ACCESS_KEY": "test",
        "AWS_REGION": "us-east-1",
        "AWS_DEFAULT_REGION": "us-east-1",
        "COFFER_STACK": STACK,
        # Without the stage, as on AWS: curl signs `$` unescaped, AWS and the SDKs sign `%24`.
        "COFFER_API_URL": f"{endpoint}/_aws/execute-api/{outputs['ApiId']}",
    }
    for name, value in outputs.items():
        if name in OUTPUTS:
            variables[OUTPUTS[name]] = value
        elif name.endswith("FunctionName"):
            verb = name.removesuffix("FunctionName").upper()
            variables[f"COFFER_{verb}_FUNCTION"] = value
    for name, value in variables.items():
        print(f"export {name}={shlex.quote(value)}")


main(*sys.argv[1:])
