"""Makes an old environment with credstash's own tools, and deploys a stack that adopts it."""

import json
import os
import subprocess
import tempfile

from conftest import ROOT, TOOLS, client

STACK = "adopted"
TABLE = "old-credential-store"
ALIAS = "alias/old-credstash"


def adopt(legacy="read", **more):
    """Makes what is not there yet, deploys, and answers the stack's name."""
    key_arn = make_key()

    def credstash(*arguments):
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
        **more,
    }
    deploy = [ROOT / "infra/local/deploy", "--stack-name", STACK, "--parameter-overrides"]
    deploy.append(" ".join(f"{name}={value}" for name, value in parameters.items()))
    done = subprocess.run(deploy, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    return STACK


def as_root(*arguments):
    """credstash's command line as the account's root, on the old table. Answers (exit code,
    stdout, stderr)."""
    with tempfile.TemporaryDirectory() as home:
        command = [TOOLS / "journeys/bin/credstash", "-t", TABLE, *arguments]
        environment = {**os.environ, "HOME": home}
        done = subprocess.run(
            command, env=environment, cwd=home, capture_output=True, text=True, timeout=60
        )
    return done.returncode, done.stdout, done.stderr


def make_key():
    kms = client("kms")
    for alias in kms.list_aliases()["Aliases"]:
        if alias["AliasName"] == ALIAS:
            return kms.describe_key(KeyId=ALIAS)["KeyMetadata"]["Arn"]
    key = kms.create_key()["KeyMetadata"]
    kms.create_alias(AliasName=ALIAS, TargetKeyId=key["KeyId"])
    return key["Arn"]


def add_names_index():
    """Adds the index that an adopted table needs, with the command of the migration guide."""
    guide = (ROOT / "docs/migrating-from-credstash.md").read_text()
    commands = guide.split("aws dynamodb update-table")
    command = next(each for each in commands if "--global-secondary-index-updates" in each)
    updates = command.split("--global-secondary-index-updates '")[1].split("'")[0]
    definitions = command.split("--attribute-definitions ")[1].split(" \\")[0].split()
    pairs = [dict(part.split("=") for part in entry.split(",")) for entry in definitions]
    client("dynamodb").update_table(
        TableName=TABLE,
        AttributeDefinitions=pairs,
        GlobalSecondaryIndexUpdates=json.loads(updates),
    )
