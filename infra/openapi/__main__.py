"""The commands, as `python -m openapi COMMAND DOCUMENT`. They print JSON:

examples    the examples of the document that its schemas do not allow
requests    requests that the API must accept or reject; their names begin with the argument PREFIX
responses   the differences between the document and the responses on standard input
"""

import json
import sys
from typing import Any

from openapi.document import check_examples, load
from openapi.requests import requests
from openapi.responses import check_responses


def main(command: str, document: str, *arguments: str) -> None:
    operations = load(document)
    output: list[Any]
    if command == "examples":
        output = list(check_examples(operations))
    elif command == "requests":
        output = requests(operations, *arguments)
    elif command == "responses":
        output = list(check_responses(operations, json.load(sys.stdin)))
    else:
        sys.exit("COMMAND must be examples, requests or responses")
    json.dump(output, sys.stdout)


main(*sys.argv[1:])
