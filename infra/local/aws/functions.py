"""Lambda: the processes of a function that is changed are ended beside the event loop, not on it,
for that takes up to seconds in which no service would answer anybody."""

import threading

from ministack.core import lambda_runtime


def install():
    kill_workers = lambda_runtime.kill_workers

    def aside(workers):
        threading.Thread(target=kill_workers, args=(list(workers),)).start()

    lambda_runtime.kill_workers = aside
