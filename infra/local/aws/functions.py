"""Lambda: stopping processes takes no time of the event loop, and the log of a call is complete.

Stopping the processes of an updated function can take seconds, in which no service could respond.

ministack waits 50 ms for the first line of a call's log, and looks for it every millisecond. On a
busy machine the line comes later. Every function here writes one.
"""

import queue
import threading
from collections.abc import Iterable
from typing import Any

from ministack.core import lambda_runtime

FIRST_LINE_SECONDS = 2.0
NEXT_LINE_SECONDS = 0.005


def log_of_call(worker: Any, **_: float) -> str:
    """Returns the lines that a call wrote, as soon as there are no more."""
    lines = []
    try:
        lines.append(worker._stderr_queue.get(timeout=FIRST_LINE_SECONDS))
        while True:
            lines.append(worker._stderr_queue.get(timeout=NEXT_LINE_SECONDS))
    except queue.Empty:
        return "\n".join(lines)


def install() -> None:
    kill_workers = lambda_runtime.kill_workers

    def kill_in_thread(workers: Iterable[Any]) -> None:
        threading.Thread(target=kill_workers, args=(list(workers),)).start()

    lambda_runtime.kill_workers = kill_in_thread
    lambda_runtime.Worker._drain_stderr_bounded = log_of_call
