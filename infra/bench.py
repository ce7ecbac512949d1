"""What a cold start of the get function costs, as a ratio to a warm get of the same run.

Runs the built function under a Lambda Runtime API of its own, with the local AWS behind it: `warm` is
from event to answer in a running process, `cold` from the start of a process to its first answer.
Both hold the time of the local AWS, which is not AWS's; the processor time is the function's alone.
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

import boto3

WARM, COLD = 300, 20
BINARY = Path(__file__).parents[1] / "target/lambda/get/bootstrap"
NAME = "bench"


class Runtime:
    """The Lambda Runtime API, for one function process."""

    def __init__(self, environment):
        events, answers = queue.Queue(), queue.Queue()
        self.events, self.answers = events, answers

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"
            disable_nagle_algorithm = True
            wbufsize = -1

            def do_GET(self):
                body = events.get()
                self.send_response(200)
                self.send_header("lambda-runtime-aws-request-id", "bench")
                self.send_header("lambda-runtime-deadline-ms", str(int(time.time() * 1000) + 29000))
                self.send_header("lambda-runtime-invoked-function-arn", "arn:aws:lambda:bench")
                self.send_header("content-length", str(len(body)))
                self.end_headers()
                self.wfile.write(body)
                self.wfile.flush()

            def do_POST(self):
                chunked = "chunked" in self.headers.get("transfer-encoding", "")
                length = int(self.headers.get("content-length", 0))
                body = b""
                while chunked and (size := int(self.rfile.readline(), 16)):
                    body += self.rfile.read(size + 2)[:-2]
                if chunked:
                    self.rfile.readline()
                answers.put((time.perf_counter(), body or self.rfile.read(length)))
                self.send_response(202)
                self.send_header("content-length", "0")
                self.end_headers()

            def log_message(self, *_):
                pass

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        # The process is killed in the middle of its next request.
        self.server.handle_error = lambda *_: None
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

    def call(self, request):
        """Seconds until the answer, and when it came."""
        began = time.perf_counter()
        self.events.put(json.dumps(request).encode())
        ended, answer = self.answers.get(timeout=30)
        assert json.loads(answer).get("secret"), answer
        return ended - began, ended

    def stop(self):
        self.process.kill()
        self.process.wait()
        self.server.shutdown()


def environment():
    """That of the deployed function, with the account's own credentials."""
    function = boto3.client("lambda").get_function_configuration(
        FunctionName=os.environ["COFFER_GET_FUNCTION"]
    )
    return {**os.environ, **function["Environment"]["Variables"]}


def main():
    boto3.client("lambda").invoke(
        FunctionName=os.environ["COFFER_PUT_FUNCTION"],
        Payload=json.dumps({"name": NAME, "secret": "s" * 64}),
    )
    settings, request = environment(), {"name": NAME}

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

    warm, cold, cpu = (statistics.median(times) * 1000 for times in (warm, cold, cpu))
    print(f"warm get                  {warm:8.2f} ms")
    print(f"cold get                  {cold:8.2f} ms {cold / warm:8.2f} of a warm one")
    print(f"processor time of it      {cpu:8.2f} ms")


main()
