"""Sample tasks that are to be stopped: at their limit, or because somebody cancels them."""

from __future__ import annotations

import asyncio
import hashlib
import math
import signal
import time
from collections.abc import Callable
from contextlib import suppress
from datetime import timedelta
from functools import partial
from pathlib import Path
from typing import Any

from django.tasks import task

from django_tasks_local import (
    await_finished,
    check_cancelled,
    in_group,
    is_cancel_requested,
    policy,
    report_progress,
    track,
    wait_finished,
    wait_group,
)
from django_tasks_local.exceptions import TaskCancelled
from tests.tasks import GATE_LIMIT_S, hold


def _noting(path: str, body: Callable[[], object]) -> str:
    """Runs `body` and notes in a file how it ended."""
    ended = "returned"
    try:
        Path(f"{path}.running").touch()
        body()
    except BaseException as error:
        ended = type(error).__name__
        raise
    finally:
        Path(path).write_text(ended)
    return ended


def _ask_for_ever() -> None:
    give_up = time.monotonic() + GATE_LIMIT_S
    while time.monotonic() < give_up:
        check_cancelled()
        time.sleep(0.005)


@task
@policy(timeout=math.inf)
def ask_for_a_while(for_s: float) -> bool:
    """Has no limit, and asks whether it is to stop."""
    end = time.monotonic() + for_s
    while time.monotonic() < end:
        check_cancelled()
        time.sleep(0.005)
    return True


@task
@policy(timeout=0.2)
def ask_beyond_its_limit(path: str) -> str:
    """Asks again and again whether it is to stop."""
    return _noting(path, _ask_for_ever)


@task
@policy(timeout=0.2)
def report_beyond_its_limit(path: str) -> str:
    def body() -> None:
        for number in track(range(100_000)):
            report_progress(number)
            time.sleep(0.001)

    return _noting(path, body)


@task
@policy(timeout=0.05)
def swallow_its_limit() -> str:
    """Catches what it is stopped with, and returns."""
    try:
        time.sleep(0.1)
        check_cancelled()
    except TimeoutError:
        pass
    return "returned"


@task
@policy(timeout=timedelta(milliseconds=200))
async def async_beyond_its_limit() -> None:
    give_up = time.monotonic() + GATE_LIMIT_S
    while time.monotonic() < give_up:
        check_cancelled()
        await asyncio.sleep(0.005)


@task
@policy(timeout=60)
def within_its_limit(value: int) -> int:
    return value


@task
def ask_until_cancelled(path: str) -> str:
    return _noting(path, _ask_for_ever)


@task
def tidy_up_when_cancelled(path: str) -> str:
    """Notes what it sees, and returns a value all the same."""
    try:
        _noting(path, _ask_for_ever)
    except TaskCancelled:
        Path(path).write_text(f"asked: {is_cancel_requested()}")
    return "returned"


@task
async def async_ask_until_cancelled(path: str) -> None:
    Path(f"{path}.running").touch()
    give_up = time.monotonic() + GATE_LIMIT_S
    while time.monotonic() < give_up:
        check_cancelled()
        await asyncio.sleep(0.005)


@task
def wait_until_cancelled(path: str, gate: str, alias: str) -> str:
    held = hold.using(backend=alias).enqueue(gate)
    return _noting(path, partial(wait_finished, held, GATE_LIMIT_S))


@task
@policy(timeout=0.2)
def wait_beyond_its_limit(path: str, gate: str, alias: str) -> str:
    """Waits for a task that holds at a gate."""
    return wait_until_cancelled.func(path, gate, alias)


@task
@policy(timeout=0.2)
def wait_for_a_group_beyond_its_limit(path: str, gate: str, alias: str) -> str:
    """Does so as one of a group."""
    with in_group(gate):
        hold.using(backend=alias).enqueue(gate)
    return _noting(path, partial(wait_group, gate, alias, GATE_LIMIT_S))


@task
async def async_wait_until_cancelled(path: str, gate: str, alias: str) -> None:
    held = await hold.using(backend=alias).aenqueue(gate)
    Path(f"{path}.running").touch()
    await await_finished(held, GATE_LIMIT_S)


@task
@policy(timeout=1)
def compute_in_c() -> None:
    hashlib.pbkdf2_hmac("sha256", b"x", b"y", 60_000_000)


@task
@policy(timeout=1)
def swallow_every_exception() -> None:
    give_up = time.monotonic() + GATE_LIMIT_S
    while time.monotonic() < give_up:
        with suppress(Exception):
            time.sleep(0.01)


@task
@policy(timeout=0.02)
def end_near_its_limit(seconds: float) -> str:
    time.sleep(seconds)
    return "returned"


@task
@policy(timeout=0.5)
def use_the_alarm_itself() -> None:
    """Takes the timer and its signal for itself, and gives neither back."""
    signal.signal(signal.SIGALRM, lambda *_: None)
    signal.setitimer(signal.ITIMER_REAL, 1000)
    time.sleep(GATE_LIMIT_S)


@task
def sleep_in_small_steps(path: str, seconds: float) -> str:
    def body() -> None:
        give_up = time.monotonic() + seconds
        while time.monotonic() < give_up:
            time.sleep(0.001)

    return _noting(path, body)


@task(takes_context=True)
@policy(timeout=0.2)
def note_beyond_its_limit(context: Any, note: Any = True) -> None:
    """Notes that it has begun, and does not save it."""
    context.metadata["begun"] = note
    _ask_for_ever()


@task(takes_context=True)
def note_until_cancelled(context: Any, path: str) -> None:
    """Notes what has no form in JSON."""
    context.metadata["begun"] = {1, 2}
    _noting(path, _ask_for_ever)
