"""Sample tasks that fail, and are tried again. They note their attempts in files."""

from __future__ import annotations

import fcntl
import os
import random
import signal
import time
from pathlib import Path
from typing import Any

from django.tasks import task

from django_tasks_local import exponential, fixed, metadata_of, policy, report_progress
from tests.tasks import GATE_LIMIT_S


class Busy(Exception):
    """What may pass."""


class Gone(Busy):
    """What does not."""


def at_once(exception: BaseException, task_result: Any) -> float:
    """Do not wait."""
    return 0


def note(path: str, line: object = "") -> int:
    """Add a line to a file; return how many it had."""
    file = Path(path)
    before = file.read_text().count("\n") if file.exists() else 0
    with file.open("a") as opened:
        opened.write(f"{line}\n")
    return before


def _fail_times(path: str, times: int) -> str:
    before = note(path, time.time_ns())
    if before < times:
        raise Busy(f"not yet: {before + 1}")
    return "done"


@task
@policy(max_attempts=4, backoff=fixed(0))
def third_time(path: str) -> str:
    """Succeeds with its third attempt."""
    return _fail_times(path, 2)


@task
@policy(max_attempts=3, backoff=at_once)
def never_succeeds(path: str) -> str:
    """Fails each time."""
    return _fail_times(path, 99)


@task
@policy(max_attempts=3, backoff=at_once)
async def async_third_time(path: str) -> str:
    """Likewise async."""
    return _fail_times(path, 2)


@task
@policy(max_attempts=1000, backoff=at_once)
def many_times(path: str, times: int) -> str:
    """Fails so often, with a long traceback each time."""
    before = note(path)
    if before < times:
        raise Busy(f"{before} {'long ' * 2000}")
    return "done"


@task
@policy(max_attempts=5, backoff=fixed(0.2))
def pauses(path: str) -> str:
    """Waits before its second attempt."""
    return _fail_times(path, 1)


@task
@policy(max_attempts=5, backoff=fixed(3))
def pauses_for_seconds(path: str) -> str:
    """Waits for long enough to have its pool killed meanwhile."""
    return _fail_times(path, 1)


@task
@policy(max_attempts=5, backoff=fixed(3600))
def waits_long(path: str) -> str:
    """Its second attempt is far away."""
    return _fail_times(path, 1)


@task
@policy(max_attempts=4, backoff=fixed(3600))
def never_in_time(path: str) -> str:
    """Fails each time, and each further attempt is far away."""
    return _fail_times(path, 99)


@task
@policy(max_attempts=5, backoff=at_once, retry_on=Busy, never=(Gone, LookupError))
def picky(path: str, which: str) -> str:
    """Raises what it is told to."""
    note(path)
    raise {"busy": Busy, "gone": Gone, "other": ValueError, "exit": SystemExit}[which](which)


@task
@policy(max_attempts=5, backoff=lambda error, result: None if result.attempts == 2 else 0)
def gives_up(path: str) -> str:
    """Its backoff gives up after the second attempt."""
    return _fail_times(path, 99)


def nonsense(exception: BaseException, task_result: Any) -> Any:
    """Return what the task's exception says, or raise."""
    text = str(exception)
    if text == "raise":
        raise ZeroDivisionError("in the backoff")
    if text == "exit":
        raise SystemExit("in the backoff")
    return {"text": "soon", "minus": -1, "nan": float("nan"), "bool": True, "inf": float("inf")}[
        text
    ]


@task
@policy(max_attempts=5, backoff=nonsense)
def with_nonsense(path: str, what: str) -> None:
    """Its backoff returns nonsense, or raises."""
    note(path)
    raise Busy(what)


@task
@policy(max_attempts=3, backoff=at_once)
def returns_nonsense(path: str) -> Any:
    """Does its work, and returns what cannot be pickled."""
    note(path)
    return lambda: None


@task
@policy(max_attempts=2, backoff=at_once, timeout=0.1)
def too_slow(path: str) -> str:
    """Runs into its time limit, once."""
    if note(path) == 0:
        end = time.monotonic() + GATE_LIMIT_S
        while time.monotonic() < end:
            report_progress(1, 2)
    return "done"


@task(takes_context=True)
@policy(max_attempts=3, backoff=at_once)
def keeps_metadata(context: Any, path: str) -> Any:
    """Notes in its metadata which attempts it has seen; reports progress in the first."""
    seen = metadata_of(context).setdefault("seen", [])
    seen.append(context.attempt)
    if note(path) == 0:
        report_progress(1, 10, "first")
        raise Busy
    return seen, context.task_result.progress is None


@task(takes_context=True)
@policy(max_attempts=3, backoff=at_once)
def keeps_nonsense(context: Any, path: str) -> str:
    """Does its work, and leaves in its metadata what is no JSON."""
    metadata_of(context)["nonsense"] = object()
    note(path)
    return "done"


@task
def says_nothing(path: str) -> str:
    """Has no policy: the alias decides."""
    return _fail_times(path, 1)


@task
@policy(max_attempts=3, retry_lost=True)
def killed_once(path: str) -> str:
    """Its worker is killed in the first attempt."""
    if note(path, os.getpid()) == 0:
        os.kill(os.getpid(), signal.SIGKILL)
    return "done"


@task
@policy(max_attempts=2, retry_lost=True)
def killed_always(path: str) -> None:
    """Its worker is killed in every attempt."""
    note(path, os.getpid())
    os.kill(os.getpid(), signal.SIGKILL)


@task
@policy(max_attempts=3)
def killed_not_retried(path: str) -> None:
    """Its worker is killed, and that is that."""
    note(path, os.getpid())
    os.kill(os.getpid(), signal.SIGKILL)


@task
@policy(max_attempts=4, backoff=exponential(base=0.01, maximum=0.02))
def logged(path: str) -> str:
    """Two failures, and a success."""
    return _fail_times(path, 2)


@task
@policy(max_attempts=100, backoff=fixed(0), retry_lost=True)
def overlapping(path: str) -> str:
    """Takes a while, fails now and then, and notes where another attempt runs at the same time."""
    with Path(path).open("a") as opened:
        opened.write("start\n")
        opened.flush()
        try:
            fcntl.flock(opened, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            opened.write("overlap\n")
        time.sleep(random.uniform(0, 0.3))
        if random.random() < 0.3:
            opened.write("busy\n")
            opened.flush()
            raise Busy
    return "done"
