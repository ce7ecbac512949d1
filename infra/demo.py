"""Shows what the stack does: each step is a real call, and its answer is compared."""

import json
import os
import subprocess
import sys
import time
from pathlib import Path

import boto3
import urllib3
from botocore.auth import SigV4Auth
from botocore.awsrequest import AWSRequest
from botocore.credentials import Credentials

LOCAL = Path(__file__).parents[1] / ".local"
CLIENT = "credstash-client"
TABLE, KEY = os.environ["COFFER_TABLE"], os.environ["COFFER_KEY_ARN"]
RUN = os.urandom(3).hex()


def say(text):
    print(f"\n\033[1m{text}\033[0m")


def expect(actual, expected):
    if actual != expected:
        sys.exit(f"Expected {expected!r}, got {actual!r}")


def invoke(verb, request):
    print(f"> {verb}, by lambda invoke: {json.dumps(request, ensure_ascii=False)}")
    answer = boto3.client("lambda").invoke(
        FunctionName=os.environ[f"COFFER_{verb.upper()}_FUNCTION"], Payload=json.dumps(request)
    )
    body = json.loads(answer["Payload"].read())
    print(json.dumps(body, ensure_ascii=False))
    return body


def http(method, path, body=None, signed=True):
    print(f"> {'signed' if signed else 'unsigned'} {method} {path} {json.dumps(body) if body else ''}")
    url = os.environ["COFFER_API_URL"] + path
    data = json.dumps(body).encode() if body else None
    request = AWSRequest(method, url, data=data, headers={"content-type": "application/json"})
    if signed:
        SigV4Auth(Credentials("test", "test"), "execute-api", os.environ["AWS_REGION"]).add_auth(
            request
        )
    response = urllib3.request(method, url, body=data, headers=dict(request.headers))
    print(response.status, response.data.decode())
    return response.status, json.loads(response.data)


def credstash(*arguments):
    """credstash as published, as an IAM user whom the key policy admits."""
    print(f"$ credstash {' '.join(arguments)}")
    iam, account = boto3.client("iam"), KEY.split(":")[4]
    table = f"arn:aws:dynamodb:{os.environ['AWS_REGION']}:{account}:table/{TABLE}"
    statements = [
        {"Effect": "Allow", "Action": f"dynamodb:{verb}", "Resource": table}
        for verb in ("GetItem", "PutItem", "Query", "Scan")
    ] + [{"Effect": "Allow", "Action": ["kms:GenerateDataKey", "kms:Decrypt"], "Resource": KEY}]
    try:
        iam.create_user(UserName=CLIENT)
    except iam.exceptions.EntityAlreadyExistsException:
        pass
    policy = json.dumps({"Version": "2012-10-17", "Statement": statements})
    iam.put_user_policy(UserName=CLIENT, PolicyName="credstash", PolicyDocument=policy)
    key = iam.create_access_key(UserName=CLIENT)["AccessKey"]
    environment = {
        **os.environ,
        "HOME": str(LOCAL / "tmp"),
        "AWS_ACCESS_KEY_ID": key["AccessKeyId"],
        "AWS_SECRET_ACCESS_KEY": key["SecretAccessKey"],
    }
    try:
        done = subprocess.run(
            [LOCAL / "journeys/bin/credstash", "-t", TABLE, *arguments],
            env=environment, cwd=LOCAL / "tmp", capture_output=True, text=True, check=True,
        )
    finally:
        iam.delete_access_key(UserName=CLIENT, AccessKeyId=key["AccessKeyId"])
    print(done.stdout.rstrip())
    return done.stdout


def rotated(request):
    """A run over everything, with its progress, and its report at the end."""
    machines = boto3.client("stepfunctions")
    print(f"$ aws stepfunctions start-execution --input '{json.dumps(request)}'")
    execution = machines.start_execution(
        stateMachineArn=os.environ["COFFER_ROTATION_STATE_MACHINE"], input=json.dumps(request)
    )["executionArn"]
    shown = None
    while (told := machines.describe_execution(executionArn=execution))["status"] == "RUNNING":
        answer = boto3.client("lambda").invoke(
            FunctionName=os.environ["COFFER_LIST_FUNCTION"],
            Payload=json.dumps({"list": "report", **request}),
        )
        report = json.loads(answer["Payload"].read())
        if report.get("state") == "running" and report["seen"] != shown:
            shown = report["seen"]
            print(f"  seen {shown}, changed {report['changed']}, failed {report['failed']}")
        time.sleep(0.2)
    print(told.get("output") or told)
    return json.loads(told["output"])


one, two, old = (f"demo-{RUN}/{name}" for name in ("database", "api-token", "old"))

say("Put a secret by lambda invoke, get it over HTTP")
invoke("put", {"name": one, "secret": "pässwörd 🔑", "comment": "the app's own user"})
expect(http("GET", f"/secrets/{one}")[1]["secret"], "pässwörd 🔑")

say("Put one by signed HTTP, under an encryption context; get it by lambda invoke")
http("PUT", f"/secrets/{two}", {"secret": "t0ken", "context": {"app": "web"}})
expect(invoke("get", {"name": two, "context": {"app": "web"}})["secret"], "t0ken")

say("Without its context it stays closed, and without a signature nobody gets in")
expect(invoke("get", {"name": two})["errorType"], "Forbidden")
expect(http("GET", f"/secrets/{one}", signed=False)[0], 403)

say("Put a generated value as the next version; the one before stays as AWSPREVIOUS")
invoke("put", {"name": one, "generate": {"length": 24, "require_each_included_type": True}})
expect(len(invoke("get", {"name": one})["secret"]), 24)
expect(invoke("get", {"name": one, "stage": "AWSPREVIOUS"})["secret"], "pässwörd 🔑")

say("credstash 1.17.1, as published, reads what Coffer wrote")
expect(credstash("get", "-n", two, "app=web"), "t0ken")

say("Coffer opens what credstash wrote")
credstash("put", "-k", KEY, old, "ten years old")
expect(invoke("get", {"name": old})["secret"], "ten years old")

say("A row whose comment was edited in the table is refused")
row = {"name": one, "version": f"{1:019}"}
boto3.resource("dynamodb").Table(TABLE).update_item(
    Key=row, UpdateExpression="SET #c = :c",
    ExpressionAttributeNames={"#c": "comment"}, ExpressionAttributeValues={":c": "edited"},
)
expect(invoke("get", {"name": one, "version": 1})["errorType"], "Integrity")

say("List the names, and the versions of one")
listed = http("GET", f"/names/demo-{RUN}")[1]["secrets"]
expect({entry["name"] for entry in listed}, {one, two, old})
versions = http("GET", f"/versions/{one}")[1]["versions"]
expect([entry["version"] for entry in versions], [2, 1])

say("Sent again with its token, a put makes no second version")
once = {"name": two, "secret": "t0ken 2", "context": {"app": "web"}, "token": f"deploy-{RUN}"}
expect(invoke("put", once), invoke("put", once))

say("Delete a secret, and restore it: its versions come back as they were")
invoke("delete", {"name": two, "recovery_window_in_days": 7})
expect(http("GET", f"/secrets/{two}?context.app=web")[0], 404)
expect(http("POST", f"/restore/{two}")[1]["versions"], [1, 2])
expect(credstash("get", "-n", two, "app=web"), "t0ken 2")

say("Its history says who did what, and that nobody has changed it since")
told = [event["operation"] for event in http("GET", f"/history/{two}")[1]["events"]]
expect(told, ["restore", "delete", "put", "put"])
expect(http("GET", f"/history/{two}?verify=true")[1]["whole"], True)

say("Several secrets are put at once, all or none, and got as one document")
bundle = {f"demo-{RUN}.env/{name}": f"value of {name}" for name in ("url", "user", "password")}
http("PUT", f"/bundle/demo-{RUN}.env", {"secrets": bundle})
expect(invoke("get", {"prefix": f"demo-{RUN}.env", "format": "json"}), bundle)
print(invoke("get", {"prefix": f"demo-{RUN}.env", "format": "dotenv"}))

say("A rotation policy gives it a new value by itself; not due yet, it is asked for by hand")
policy = {"days": 30, "generate": {"length": 24, "require_each_included_type": True}}
http("PUT", f"/policies/{one}", policy)
renewed = http("POST", f"/rotate/{one}", {"action": "renew"})[1]
expect(invoke("get", {"name": one})["version"], renewed["version"])
expect(invoke("list", {"list": "history", "name": one})["events"][0]["operation"], "renew")

say("KMS gives the key new material; a run wraps every data key anew, and no value is touched")
names = [f"demo-{RUN}.fleet/{number:03}" for number in range(250)]
for start in range(0, 250, 50):
    secrets = {name: f"value of {name}" for name in names[start : start + 50]}
    boto3.client("lambda").invoke(
        FunctionName=os.environ["COFFER_PUT_FUNCTION"],
        Payload=json.dumps({"prefix": f"demo-{RUN}.fleet", "secrets": secrets}),
    )
boto3.client("kms").rotate_key_on_demand(KeyId=KEY)
expect(rotated({"action": "rewrap"})["failed"], 0)
expect(invoke("get", {"name": names[0]})["secret"], f"value of {names[0]}")

say("What credstash wrote is given a seal, in place; credstash goes on reading it")
expect(rotated({"action": "reseal"})["changed"] >= 1, True)
expect("dialect" in invoke("get", {"name": old}), False)
expect(credstash("get", "-n", old), "ten years old")

say("All of this ran on the template that you deploy. `make stop` ends the local AWS.")
