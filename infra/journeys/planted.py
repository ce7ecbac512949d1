"""A value that tests plant in requests, and that must appear in no error and in no log."""

import base64
import json

from conftest import Response, Stack

PLANTED = "pl4nted-s3cret-9f81"


def assert_no_trace(stack: Stack, name: str, response: Response) -> None:
    """Asserts that the request is in neither response nor log, and that nothing was written."""
    assert PLANTED not in json.dumps(response.body, default=repr)
    assert PLANTED not in response.log
    assert PLANTED not in json.dumps(response.headers or {})
    assert stack.versions_of(name) == []


def assert_not_logged(stack: Stack) -> None:
    """Asserts that no log has the planted value."""
    lines = stack.logs()
    assert '"operation":"put"' in lines
    assert PLANTED not in lines
    # Its base64 depends on where it starts in the encoded body.
    for offset in range(3):
        encoded = base64.b64encode(b"-" * offset + PLANTED.encode()).decode()
        assert encoded[4:-4] not in lines
