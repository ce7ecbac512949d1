"""Callers can use only the key, the routes and the functions that policies allow them."""

import base64
from typing import Any

import pytest

from conftest import ACCOUNT, NUMBERS, REGION, MakeCaller, Stack, allow, client, user


def test_the_key_policy_overrides_the_permissions_of_an_administrator(
    stack: Stack, iam: Any, kms: Any, name: str
) -> None:
    """The policy of the administrator allows every action."""
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
    # Administration stays possible; otherwise, nobody could change the policy.
    assert administrator.get_key_policy(KeyId=arn, PolicyName="default")["Policy"]
    assert administrator.describe_key(KeyId=arn)["KeyMetadata"]["Enabled"]


def test_a_caller_can_get_only_the_paths_in_its_policy(
    stack: Stack, caller: MakeCaller, name: str
) -> None:
    for prefix in ("dev", "prod", "development"):
        stack.put(f"{prefix}/{name}", f"{prefix} value")
    dev = caller("GET/secrets/dev/*")
    response = stack.http("GET", f"/secrets/dev/{name}", credentials=dev)
    assert (response.status, response.body["secret"]) == (200, "dev value")
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
        response = stack.http(method, path, body=body, credentials=dev)
        assert response.status == 403, (method, path)
    # IAM evaluates an escaped slash as a slash.
    assert stack.http("GET", f"/secrets/prod%2F{name}", credentials=dev, quote=False).status == 403
    escaped = stack.http("GET", f"/secrets/dev%2F{name}", credentials=dev, quote=False)
    assert escaped.body["secret"] == "dev value"
    assert len(stack.versions_of(f"dev/{name}")) == 1


def test_a_caller_can_list_only_the_paths_in_its_policy(
    stack: Stack, caller: MakeCaller, name: str
) -> None:
    stack.put(f"{name}/a", "1")
    stack.put(f"{name}-b", "2")
    lister = caller(f"GET/names/{name}")
    response = stack.http("GET", f"/names/{name}", credentials=lister)
    assert [entry["name"] for entry in response.body["secrets"]] == [f"{name}/a"]
    assert stack.http("GET", f"/names/{name}-b", credentials=lister).status == 403
    assert stack.http("GET", "/names", credentials=lister).status == 403
    # A `next` from one route gives no access to another.
    assert stack.http("GET", "/names", query="next=e30", credentials=lister).status == 403


def test_unsigned_and_wrongly_signed_requests_are_refused(
    stack: Stack, iam: Any, name: str
) -> None:
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


def test_direct_invoke_requires_permission_for_the_function(
    stack: Stack, iam: Any, name: str
) -> None:
    stack.put(name, "s")
    arn = f"arn:aws:lambda:{REGION}:{ACCOUNT}:function:{stack.functions['get']}"
    reader = user(iam, f"reader-{next(NUMBERS)}", allow("lambda:InvokeFunction", arn))
    assert stack.invoke("get", {"name": name}, reader).body["secret"] == "s"
    with pytest.raises(Exception, match="AccessDenied"):
        stack.invoke("put", {"name": name, "secret": "x"}, reader)
