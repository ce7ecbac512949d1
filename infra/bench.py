"""What Coffer adds to what it must do: the get function against the two AWS calls it makes.

Runs the built function under a Lambda Runtime API of its own, with the local AWS behind it, and
prints medians and their ratios, all from this one run:

  warm    a get in a running function, over its bare Query and Decrypt on kept connections
  cold    process start to first answer, and the processor time of it, over a warm get
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
import urllib3
from botocore.auth import SigV4Auth
from botocore.awsrequest import AWSRequest
from botocore.credentials import Credentials

WARM, COLD = 300, 20
BINARY = Path(__file__).parents[1] / "target/lambda/get/bootstrap"
ENDPOINT = os.environ["AWS_ENDPOINT_URL"]
TABLE, KEY = os.environ["COFFER_TABLE"], os.environ["COFFER_KEY_ARN"]
NAME = "bench"


class Runtime:
    """The Lambda Runtime API, for one function process."""

    def __init__(self, environment):
        events, answers = queue.Queue(), queue.Queue()
        self.events, self.answers = events, answers

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_GET(self):
                body = events.get()
                self.send_response(200)
                self.send_header("lambda-runtime-aws-request-id", "bench")
                self.send_header("lambda-runtime-deadline-ms", str(int(time.time() * 1000) + 29000))
                self.send_header("lambda-runtime-invoked-function-arn", "arn:aws:lambda:bench")
                self.send_header("content-length", str(len(body)))
                self.end_headers()
                self.wfile.write(body)

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


def bare_calls(pool, row):
    """The same Query and Decrypt, signed and sent on kept connections, and their answers read."""

    def send(service, target, version, body):
        request = AWSRequest(
            "POST",
            ENDPOINT + "/",
            data=json.dumps(body).encode(),
            headers={"content-type": f"application/x-amz-json-{version}", "x-amz-target": target},
        )
        SigV4Auth(Credentials("test", "test"), service, "us-east-1").add_auth(request)
        response = pool.urlopen(
            "POST", request.url, body=request.data, headers=dict(request.headers)
        )
        assert response.status == 200, response.data

    query = {
        "TableName": TABLE,
        "KeyConditionExpression": "#name = :name",
        "ExpressionAttributeNames": {"#name": "name"},
        "ExpressionAttributeValues": {":name": {"S": NAME}},
        "ConsistentRead": True,
        "ScanIndexForward": False,
        "Limit": 1,
    }
    began = time.perf_counter()
    send("dynamodb", "DynamoDB_20120810.Query", "1.0", query)
    send("kms", "TrentService.Decrypt", "1.1", {"CiphertextBlob": row["key"], "KeyId": KEY})
    return time.perf_counter() - began


def main():
    boto3.client("lambda").invoke(
        FunctionName=os.environ["COFFER_PUT_FUNCTION"],
        Payload=json.dumps({"name": NAME, "secret": "s" * 64}),
    )
    row = boto3.resource("dynamodb").Table(TABLE).get_item(
        Key={"name": NAME, "version": f"{1:019}"}
    )["Item"]
    settings, request = environment(), {"name": NAME}

    pool = urllib3.PoolManager()
    running = Runtime(settings)
    running.call(request)
    warm, bare = [], []
    for _ in range(WARM):  # in turn, so that a slow moment strikes both
        warm.append(running.call(request)[0])
        bare.append(bare_calls(pool, row))
    running.stop()

    cold, cpu = [], []
    for _ in range(COLD):
        before = resource.getrusage(resource.RUSAGE_CHILDREN)
        starting = Runtime(settings)
        cold.append(starting.call(request)[1] - starting.began)
        starting.stop()
        after = resource.getrusage(resource.RUSAGE_CHILDREN)
        cpu.append(after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime)

    medians = {
        "bare Query + Decrypt": statistics.median(bare),
        "warm get": statistics.median(warm),
        "cold get": statistics.median(cold),
        "cold get, processor time": statistics.median(cpu),
    }
    for what, seconds in medians.items():
        print(f"{what:26} {seconds * 1000:8.2f} ms")
    print(f"warm get / its bare calls  {statistics.median(warm) / statistics.median(bare):8.2f}")
    print(f"cold get / warm get        {statistics.median(cold) / statistics.median(warm):8.2f}")


main()
