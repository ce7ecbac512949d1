"""Common programs read the environment files that Coffer writes.

Each program reads exactly the values that were put; Coffer refuses values that it would change.
"""

import io
import json
import os
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest
from docker.utils import parse_env_file
from dotenv import dotenv_values

from conftest import TOOLS, Stack

DOTENV = {
    "plain": "hunter2",
    "empty": "",
    "spaces": "  two  ",
    "tab": "a\tb\t",
    "double": 'she said "no"',
    "apostrophe": "it's",
    "unicode": "pässword 鍵 🔑 \u00a0\u200b\u3000\ufeff",
    "hash": "a # b: c",
    "equals": "a=b==",
    "dollar": "$HOME $$ $1 $x",
    "backslash": '\\n \\t \\$ \\" \\x',
    "command": "`id`",
    "brackets": "[1, {2}] (3) <4>",
    "operators": "a;b & c | d > e * ? ~ !x",
    "export": "export A=1",
    "2fa": "digits first",
    "with-dash": "d",
    "with space": "s",
    "dotted.name": "n",
    "user": "a name that shells set themselves",
    "long": "x" * 100_000,
    **{f"char-{ord(char)}": f"{char}a{char}" for char in "!#$%&()*+,-./:;<=>?@[]^_`{|}~"},
}
ENV_FILE = {
    **{key: value for key, value in DOTENV.items() if value.strip() == value and key != "long"},
    "quoted": "'single' and \"double\"",
    "only quotes": '"\'"',
    "ends": "in \\",
    "twice": "a\\\\b",
    "expanded": "${HOME} $(id)",
    "random": "for containers a name like any other",
}
# Values that a program could read as more than one line, or as something else.
NOT_ONE_LINE = {
    "line feed": "one\nINJECTED=two",
    "carriage return": "one\rINJECTED=two",
    "next line": "one\u0085INJECTED=two",
    "line separator": "one\u2028INJECTED=two",
    "vertical tab": "one\vINJECTED=two",
    "form feed": "one\fINJECTED=two",
    "separator": "one\x1eINJECTED=two",
    "nul": "one\0two",
    "escape": "one\x1b[2Jtwo",
}
REFUSED = {
    "dotenv": {
        **NOT_ONE_LINE,
        "both quotes": 'it\'s "$5"',
        "ends": "in \\",
        "twice": "a\\\\b",
        "braces": "${HOME}",
        "substitution": "$(id)",
        "path": "what shells act on",
        "ifs": "x",
        "ld_preload": "x",
        "bash_env": "x",
        "random": "a[`id`]",
        "uid": "0",
        "lc_ctype": "C",
        "ps4": "`id`",
        "dyld_insert_libraries": "x",
        "glibc_tunables": "x",
        "histfile": "x",
        "mailpath": "/tmp/m?`id`",
        "execignore": "*",
        "tmout": "1",
    },
    "env-file": {
        **NOT_ONE_LINE,
        "begins": " x",
        "ends": "x\t",
        "wide": "x\u3000",
        "unbroken": "\u00a0x",
        "long": "x" * 65_000,
    },
}


def variable(name: str) -> str:
    """Returns the documented variable name of a secret, in upper case."""
    name = "".join(char if char.isascii() and char.isalnum() else "_" for char in name)
    return ("_" if name[0].isdigit() else "") + name.upper()


def shell(*command: str) -> Callable[[Path], dict[str, str]]:
    """Returns a reader that sources a file in this shell and returns a child's environment."""

    def read(path: Path) -> dict[str, str]:
        script = (
            'set -a; . "$1"; exec "$2" -c "import json, os; print(json.dumps(dict(os.environ)))"'
        )
        python = TOOLS / "journeys/bin/python"
        done = subprocess.run(
            [*command, "-c", script, "sh", path, python],
            env={"LC_ALL": "C.UTF-8", "PATH": os.environ["PATH"]},
            capture_output=True,
            text=True,
        )
        assert (done.returncode, done.stderr) == (0, "")
        # Variables that every shell sets.
        own = {"LC_ALL", "PATH", "PWD", "OLDPWD", "SHLVL", "_", "LC_CTYPE"}
        return {key: value for key, value in json.loads(done.stdout).items() if key not in own}

    return read


def npm(path: Path) -> dict[str, str]:
    """Reads a file with npm's dotenv."""
    script = (
        "const [, lib, file] = process.argv; const text = require('fs').readFileSync(file, 'utf8');"
    )
    script += "console.log(JSON.stringify(require(lib).parse(text)))"
    library = TOOLS / "node/node_modules/dotenv"
    done = subprocess.run(
        [TOOLS / "journeys/bin/node", "-e", script, library, path],
        env={**os.environ, "NODE_DISABLE_COMPILE_CACHE": "1"},
        capture_output=True,
        text=True,
        check=True,
    )
    return json.loads(done.stdout)


DOTENV_READERS = {
    "sh": shell("sh"),
    "bash": shell("bash"),
    "bash as sh": shell("bash", "--posix"),
    "python-dotenv": lambda path: dict(dotenv_values(path)),
    "python-dotenv without interpolation": lambda path: dict(
        dotenv_values(stream=io.StringIO(path.read_text(), newline=""), interpolate=False)
    ),
    "npm dotenv": npm,
}


@pytest.fixture(scope="module")
def documents(stack: Stack, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Returns the path of a file in each format, as the stack returns it."""

    def write(format_: str, secrets: dict[str, str]) -> Path:
        prefix = f"readers-{os.getpid()}/{format_}"
        items = [(f"{prefix}/{key}", value) for key, value in secrets.items()]
        for start in range(0, len(items), 40):
            stack.done("put", prefix=prefix, secrets=dict(items[start : start + 40]))
        direct = stack.done("get", prefix=prefix, format=format_)
        by_http = stack.by_http("get", {"prefix": prefix, "format": format_})
        assert by_http.body.decode() == direct
        assert by_http.headers["content-type"] == "text/plain; charset=utf-8"
        path = tmp_path_factory.mktemp("readers") / format_
        path.write_text(direct, newline="")
        return path

    return {"dotenv": write("dotenv", DOTENV), "env-file": write("env-file", ENV_FILE)}


@pytest.mark.parametrize("reader", DOTENV_READERS)
def test_dotenv_readers_return_the_values_that_were_put(
    documents: dict[str, Path], reader: str
) -> None:
    expected = {variable(key): value for key, value in DOTENV.items()}
    assert len(expected) == len(DOTENV)
    assert DOTENV_READERS[reader](documents["dotenv"]) == expected


def test_docker_reads_the_values_that_were_put_from_an_env_file(documents: dict[str, Path]) -> None:
    expected = {variable(key): value for key, value in ENV_FILE.items()}
    assert len(expected) == len(ENV_FILE)
    assert parse_env_file(documents["env-file"]) == expected
    # kubectl and docker's command line use everything between `=` and the line feed unchanged.
    lines = documents["env-file"].read_text().split("\n")
    assert dict(line.split("=", 1) for line in lines if line) == expected


@pytest.mark.parametrize("format_", REFUSED)
def test_values_that_readers_would_change_are_refused_by_name(
    stack: Stack, name: str, format_: str
) -> None:
    secrets = {f"{name}/{key}": value for key, value in REFUSED[format_].items()}
    stack.done("put", prefix=name, secrets={f"{name}/fine": "s", **secrets})
    for _, response in stack.both("get", {"prefix": name, "format": format_}):
        assert response.code == "Invalid"
        assert all(f'"{secret}"' in response.message for secret in secrets), response.message
        assert f'"{name}/fine"' not in response.message and "INJECTED" not in response.message
    assert stack.done("get", prefix=name, format="json") == {f"{name}/fine": "s", **secrets}


def test_names_that_map_to_the_same_variable_are_refused_by_name(stack: Stack, name: str) -> None:
    for key in ("db-host", "db.host", "DB", "db", "other"):
        stack.put(f"{name}/{key}", "s")
    for format_ in ("dotenv", "env-file"):
        for _, response in stack.both("get", {"prefix": name, "format": format_}):
            assert response.code == "Invalid"
            clashing = ("db-host", "db.host", "DB", "db")
            assert all(f'"{name}/{key}"' in response.message for key in clashing)
            assert f'"{name}/other"' not in response.message
    stack.done("delete", name=f"{name}/db-host")
    for _, response in stack.both("get", {"prefix": name, "format": "dotenv", "uppercase": False}):
        text = response.body if isinstance(response.body, str) else response.body.decode()
        assert sorted(text.splitlines()) == ["DB='s'", "db='s'", "db_host='s'", "other='s'"]


def test_a_prefix_is_removed_in_whole_segments(stack: Stack, name: str) -> None:
    stack.put(name, "itself")
    stack.put(f"{name}/db_host", "h")
    own = name.split("/")[-1]
    for prefix, expected in (
        (name, f"{variable(own)}=itself\nDB_HOST=h\n"),
        (f"{name}/*", "DB_HOST=h\n"),
        (f"{name}/db_*", "DB_HOST=h\n"),
        (f"{name}*", f"{variable(own)}=itself\n{variable(own)}_DB_HOST=h\n"),
    ):
        assert stack.done("get", prefix=prefix, format="env-file") == expected, prefix
