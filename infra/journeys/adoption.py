"""Makes a table and a KMS key with credstash, and deploys a stack that adopts them."""

import json
import os
import subprocess

import old_clients
from conftest import ROOT, client

STACK = "adopted"
TABLE = "old-credential-store"
ALIAS = "alias/old-credstash"


def adopt(legacy: str = "read", **overrides: str) -> str:
    """Creates the table and the key if they are missing, deploys the stack, and returns its name.

    `legacy` is the parameter `LegacyItems`; `overrides` are other parameters.
    """
    key_arn = make_key()

    def credstash(*arguments: str) -> None:
        code, out, err = as_root(*arguments)
        assert code == 0, out + err

    if TABLE not in client("dynamodb").list_tables()["TableNames"]:
        credstash("setup")
        credstash("put", "-k", ALIAS, "written/by/credstash", "ten years ago")
    parameters = {
        "Architecture": "x86_64",
        "ExistingTableName": TABLE,
        "ExistingKeyArn": key_arn,
        "LegacyItems": legacy,
        "DataKeyCacheSeconds": "3600",
        **overrides,
    }
    deploy = [str(ROOT / "infra/local/deploy"), "--stack-name", STACK, "--parameter-overrides"]
    deploy.append(" ".join(f"{name}={value}" for name, value in parameters.items()))
    done = subprocess.run(deploy, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    return STACK


def as_root(*arguments: str) -> tuple[int, str, str]:
    """Runs credstash on the adopted table as the account's root.

    Returns its exit code, stdout and stderr.
    """
    return old_clients.credstash(os.environ, TABLE, *arguments)


def make_key() -> str:
    """Returns the ARN of the KMS key, which is created if its alias does not exist."""
    kms = client("kms")
    for alias in kms.list_aliases()["Aliases"]:
        if alias["AliasName"] == ALIAS:
            return kms.describe_key(KeyId=ALIAS)["KeyMetadata"]["Arn"]
    key = kms.create_key()["KeyMetadata"]
    kms.create_alias(AliasName=ALIAS, TargetKeyId=key["KeyId"])
    return key["Arn"]


def add_names_index() -> None:
    """Adds the index `names` to the adopted table, with the command from the migration guide."""
    guide = (ROOT / "docs/migrating-from-credstash.md").read_text()
    before, after = guide.split("--global-secondary-index-updates '")
    updates = after.split("'")[0]
    definitions = before.rpartition("--attribute-definitions ")[2].split(" \\")[0].split()
    pairs = [dict(part.split("=") for part in entry.split(",")) for entry in definitions]
    client("dynamodb").update_table(
        TableName=TABLE,
        AttributeDefinitions=pairs,
        GlobalSecondaryIndexUpdates=json.loads(updates),
    )
