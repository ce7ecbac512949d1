"""Lambda: the processes of an updated function are stopped in a thread.

That can take seconds. In the event loop, no service could respond meanwhile.
"""

import threading
from collections.abc import Iterable
from typing import Any

from ministack.core import lambda_runtime


def install() -> None:
    kill_workers = lambda_runtime.kill_workers

    def kill_in_thread(workers: Iterable[Any]) -> None:
        threading.Thread(target=kill_workers, args=(list(workers),)).start()

    lambda_runtime.kill_workers = kill_in_thread
