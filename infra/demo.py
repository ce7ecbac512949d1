"""Shows what a stack does. Each step makes real calls and checks what they return."""

import json
import os
import sys
import time
from typing import Any

import old_clients
from stack import Stack, client

STACK = Stack(os.environ["COFFER_STACK"])
# In every name, so that each run of the demo has secrets of its own.
RUN = os.urandom(3).hex()


def say(text: str) -> None:
    print(f"\n\033[1m{text}\033[0m")


def expect(actual: object, expected: object) -> None:
    """Ends the demo with an error unless both are equal."""
    if actual != expected:
        sys.exit(f"Expected {expected!r}, got {actual!r}")


def invoke(verb: str, request: dict[str, Any]) -> Any:
    """Calls an operation by direct invoke. Returns the body of the response or of the error."""
    print(f"> {verb}, by direct invoke: {json.dumps(request, ensure_ascii=False)}")
    response = STACK.invoke(verb, request)
    print(json.dumps(response.body, ensure_ascii=False))
    return response.body


def http(
    method: str, path: str, query: str = "", body: Any = None, signed: bool = True
) -> tuple[int | None, Any]:
    """Calls an operation by HTTP. Returns the status and the body."""
    shown = [path + (f"?{query}" if query else ""), json.dumps(body) if body else ""]
    print(f"> {'signed' if signed else 'unsigned'} {method} {' '.join(shown).rstrip()}")
    response = STACK.http(method, path, query, body, credentials="root" if signed else None)
    print(response.status, json.dumps(response.body, ensure_ascii=False))
    return response.status, response.body


def credstash(environment: dict[str, str], *arguments: str) -> str:
    """Runs credstash and returns what it prints."""
    print(f"$ credstash {' '.join(arguments)}")
    code, output, errors = old_clients.credstash(environment, STACK.table, *arguments)
    expect((code, errors if code else ""), (0, ""))
    print(output.rstrip())
    return output


def run(action: str) -> dict[str, Any]:
    """Does a run over everything, printing its progress. Returns its report."""
    machines, request = client("stepfunctions"), {"action": action}
    print(f"$ aws stepfunctions start-execution --input '{json.dumps(request)}'")
    arn = machines.start_execution(stateMachineArn=STACK.machine, input=json.dumps(request))
    printed = None
    while True:
        execution = machines.describe_execution(executionArn=arn["executionArn"])
        if execution["status"] != "RUNNING":
            break
        report = STACK.invoke("list", {"list": "report", **request}).body
        if report.get("state") == "running" and report["seen"] != printed:
            printed = report["seen"]
            print(f"  seen {printed}, changed {report['changed']}, failed {report['failed']}")
        time.sleep(0.2)
    print(execution.get("output") or execution)
    expect(execution["status"], "SUCCEEDED")
    return json.loads(execution["output"])


def main() -> None:
    database, api_token, old = (f"demo-{RUN}/{name}" for name in ("database", "api-token", "old"))
    user = old_clients.environment_of_user(STACK)
    put_get_and_open(database, api_token)
    share_with_credstash(user, database, api_token, old)
    list_delete_and_restore(user, database, api_token, old)
    put_a_bundle()
    renew_by_policy(database)
    rewrap_and_reseal(user, old)
    say("All of this ran on the template that you deploy. `make stop` ends the local AWS.")


def put_get_and_open(database: str, api_token: str) -> None:
    say("Put a secret by direct invoke, and get it by HTTP")
    invoke("put", {"name": database, "secret": "pässwörd 🔑", "comment": "the app's own user"})
    expect(http("GET", f"/secrets/{database}")[1]["secret"], "pässwörd 🔑")

    say("Put a secret with an encryption context by HTTP, and get it by direct invoke")
    body = {"secret": "t0ken", "context": {"app": "web"}}
    http("PUT", f"/secrets/{api_token}", body=body)
    expect(invoke("get", {"name": api_token, "context": {"app": "web"}})["secret"], "t0ken")

    say("Without its encryption context a secret cannot be opened. Unsigned requests are refused")
    expect(invoke("get", {"name": api_token})["code"], "Forbidden")
    expect(http("GET", f"/secrets/{database}", signed=False)[0], 403)

    say("Put a generated value as the next version. The previous version becomes AWSPREVIOUS")
    generate = {"length": 24, "require_each_included_type": True}
    invoke("put", {"name": database, "generate": generate})
    expect(len(invoke("get", {"name": database})["secret"]), 24)
    expect(invoke("get", {"name": database, "stage": "AWSPREVIOUS"})["secret"], "pässwörd 🔑")

    say("A put that is sent again with the same token creates no second version")
    again = {
        "name": api_token,
        "secret": "t0ken 2",
        "context": {"app": "web"},
        "token": f"deploy-{RUN}",
    }
    expect(invoke("put", again), invoke("put", again))


def share_with_credstash(user: dict[str, str], database: str, api_token: str, old: str) -> None:
    say("credstash 1.17.1, as published, reads what Coffer wrote")
    expect(credstash(user, "get", "-n", api_token, "app=web"), "t0ken 2")

    say("Coffer opens what credstash wrote")
    credstash(user, "put", "-k", STACK.key_arn, old, "ten years old")
    expect(invoke("get", {"name": old})["secret"], "ten years old")

    say("A version whose comment was edited in the table is refused")
    STACK.rows.update_item(
        Key={"name": database, "version": f"{1:019}"},
        UpdateExpression="SET #c = :c",
        ExpressionAttributeNames={"#c": "comment"},
        ExpressionAttributeValues={":c": "edited"},
    )
    expect(invoke("get", {"name": database, "version": 1})["code"], "Integrity")


def list_delete_and_restore(user: dict[str, str], database: str, api_token: str, old: str) -> None:
    say("List the names, and the versions of one secret")
    listed = http("GET", f"/names/demo-{RUN}")[1]["secrets"]
    expect({entry["name"] for entry in listed}, {database, api_token, old})
    versions = http("GET", f"/versions/{database}")[1]["versions"]
    expect([entry["version"] for entry in versions], [2, 1])

    say("Delete a secret, and restore it with all its versions")
    invoke("delete", {"name": api_token, "recovery_window_in_days": 7})
    expect(http("GET", f"/secrets/{api_token}", "context.app=web")[0], 404)
    expect(http("POST", f"/restore/{api_token}")[1]["versions"], [1, 2])
    expect(credstash(user, "get", "-n", api_token, "app=web"), "t0ken 2")

    say("Its history says who did what, and that nobody has edited it")
    events = http("GET", f"/history/{api_token}")[1]["events"]
    expect([event["operation"] for event in events], ["restore", "delete", "put", "put"])
    expect(http("GET", f"/history/{api_token}", "verify=true")[1]["whole"], True)


def put_a_bundle() -> None:
    say("Put several secrets in one transaction, and get them as one document")
    prefix = f"demo-{RUN}.env"
    bundle = {f"{prefix}/{name}": f"value of {name}" for name in ("url", "user", "password")}
    http("PUT", f"/bundle/{prefix}", body={"secrets": bundle})
    expect(invoke("get", {"prefix": prefix, "format": "json"}), bundle)
    print(invoke("get", {"prefix": prefix, "format": "dotenv"}))


def renew_by_policy(database: str) -> None:
    say("A rotation policy gives a secret a new value every 30 days. Renew it now, by hand")
    policy = {"days": 30, "generate": {"length": 24, "require_each_included_type": True}}
    http("PUT", f"/policies/{database}", body=policy)
    renewed = http("POST", f"/rotate/{database}", body={"action": "renew"})[1]
    expect(invoke("get", {"name": database})["version"], renewed["version"])
    events = invoke("list", {"list": "history", "name": database})["events"]
    expect(events[0]["operation"], "renew")


def rewrap_and_reseal(user: dict[str, str], old: str) -> None:
    say("KMS rotates the key. A run re-encrypts every data key, and changes no value")
    prefix = f"demo-{RUN}.fleet"
    names = [f"{prefix}/{number:03}" for number in range(250)]
    for start in range(0, 250, 50):
        secrets = {name: f"value of {name}" for name in names[start : start + 50]}
        STACK.done("put", prefix=prefix, secrets=secrets)
    client("kms").rotate_key_on_demand(KeyId=STACK.key_arn)
    expect(run("rewrap")["failed"], 0)
    expect(invoke("get", {"name": names[0]})["secret"], f"value of {names[0]}")

    say("A run seals what credstash wrote, in place. credstash can still read it")
    expect(run("reseal")["changed"] >= 1, True)
    expect("dialect" in invoke("get", {"name": old}), False)
    expect(credstash(user, "get", "-n", old), "ten years old")


main()
