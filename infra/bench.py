"""Measures a cold start of the get function, also as a multiple of a warm get.

Runs the built function on its own Lambda Runtime API, with the local AWS behind it. A warm get is
timed from request to response in a running process, a cold get from the start of a process to its
first response. Both include the time of the local AWS, which differs from AWS's. CPU time is that
of the function alone.
"""

import json
import os
import queue
import resource
import statistics
import subprocess
import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

from stack import Stack, client

WARM, COLD = 300, 20
BINARY = Path(__file__).resolve().parents[1] / "target/lambda/get/bootstrap"
NAME = "bench"


class Runtime:
    """The Lambda Runtime API, for one function process."""

    def __init__(self, environment: dict[str, str]) -> None:
        requests: queue.Queue[bytes] = queue.Queue()
        # With the time at which each response arrived.
        responses: queue.Queue[tuple[float, bytes]] = queue.Queue()
        self.requests, self.responses = requests, responses

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"
            disable_nagle_algorithm = True
            wbufsize = -1

            def do_GET(self) -> None:
                body = requests.get()
                self.send_response(200)
                self.send_header("lambda-runtime-aws-request-id", "bench")
                self.send_header("lambda-runtime-deadline-ms", str(int(time.time() * 1000) + 29000))
                self.send_header("lambda-runtime-invoked-function-arn", "arn:aws:lambda:bench")
                self.send_header("content-length", str(len(body)))
                self.end_headers()
                self.wfile.write(body)
                self.wfile.flush()

            def do_POST(self) -> None:
                chunked = "chunked" in self.headers.get("transfer-encoding", "")
                length = int(self.headers.get("content-length", 0))
                body = b""
                while chunked and (size := int(self.rfile.readline(), 16)):
                    body += self.rfile.read(size + 2)[:-2]
                if chunked:
                    self.rfile.readline()
                responses.put((time.perf_counter(), body or self.rfile.read(length)))
                self.send_response(202)
                self.send_header("content-length", "0")
                self.end_headers()

            def log_message(self, *_: object) -> None:
                pass

        class Server(ThreadingHTTPServer):
            def handle_error(self, *_: object) -> None:
                """Ignores that the process is killed while it waits for its next request."""

        self.server = Server(("127.0.0.1", 0), Handler)
        threading.Thread(target=self.server.serve_forever, daemon=True).start()
        self.began = time.perf_counter()
        self.process = subprocess.Popen(
            [BINARY],
            env={
                **environment,
                "AWS_LAMBDA_RUNTIME_API": f"127.0.0.1:{self.server.server_port}",
                "AWS_LAMBDA_FUNCTION_NAME": "get",
                "AWS_LAMBDA_FUNCTION_MEMORY_SIZE": "256",
                "AWS_LAMBDA_FUNCTION_VERSION": "1",
            },
            stdout=subprocess.DEVNULL,
        )

    def call(self, request: dict[str, Any]) -> tuple[float, float]:
        """Returns the seconds until the response, and the time at which it arrived."""
        began = time.perf_counter()
        self.requests.put(json.dumps(request).encode())
        ended, response = self.responses.get(timeout=30)
        assert json.loads(response).get("secret"), response
        return ended - began, ended

    def stop(self) -> None:
        self.process.kill()
        self.process.wait()
        self.server.shutdown()


def environment(stack: Stack) -> dict[str, str]:
    """Returns the environment of the deployed function, with the credentials of the account."""
    name = stack.functions["get"]
    function = client("lambda").get_function_configuration(FunctionName=name)
    return {**os.environ, **function["Environment"]["Variables"]}


def main() -> None:
    stack = Stack(os.environ["COFFER_STACK"])
    stack.put(NAME, "s" * 64)
    settings, request = environment(stack), {"name": NAME}

    running = Runtime(settings)
    running.call(request)
    warm = [running.call(request)[0] for _ in range(WARM)]
    running.stop()

    cold, cpu = [], []
    for _ in range(COLD):
        before = resource.getrusage(resource.RUSAGE_CHILDREN)
        starting = Runtime(settings)
        cold.append(starting.call(request)[1] - starting.began)
        starting.stop()
        after = resource.getrusage(resource.RUSAGE_CHILDREN)
        cpu.append(after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime)

    warm_ms, cold_ms, cpu_ms = (statistics.median(times) * 1000 for times in (warm, cold, cpu))
    print(f"warm get                  {warm_ms:8.2f} ms")
    print(f"cold get                  {cold_ms:8.2f} ms {cold_ms / warm_ms:8.2f} times a warm get")
    print(f"CPU time of a cold get    {cpu_ms:8.2f} ms")


main()
