"""Tasks for the pool's tests: above all those that misbehave."""

from __future__ import annotations

import ctypes
import multiprocessing
import os
import signal
import subprocess
import sys
import threading
import time
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path
from typing import Any

from django.tasks import TaskContext, task

from django_tasks_local import current_result_id, report_progress, scheduled_for

# After so long a task that waits for its test goes on: the test has failed and is gone.
GATE_LIMIT_S = 100.0


def _log(path: str, line: str) -> None:
    with Path(path).open("a") as file:
        file.write(f"{line}\n")


@task
def add(a: int, b: int = 0) -> int:
    return a + b


@task
def talk(text: str) -> None:
    print(text)


@task
def note(path: str, line: str = "") -> int:
    """Append a line to a file: a task that ran twice is seen there twice."""
    _log(path, line or current_result_id.get())
    return os.getpid()


@task
def hold(gate: str) -> int:
    """Says that it runs (``<gate>.<pid>``), and runs until the file ``gate`` exists."""
    Path(f"{gate}.{os.getpid()}").touch()
    end = time.monotonic() + GATE_LIMIT_S
    while not Path(gate).exists():
        if time.monotonic() > end:
            raise TimeoutError(f"{gate} never came")
        time.sleep(0.005)
    return os.getpid()


@task
def report_and_hold(gate: str) -> None:
    report_progress(3, 10, "three of ten")
    hold.func(gate)


@task
def enqueue_others(path: str, count: int) -> list[str]:
    """Enqueues tasks on this alias and on another one."""
    here = [note.enqueue(path, f"here {n}").id for n in range(count)]
    there = [note.using(backend="other").enqueue(path, f"there {n}").id for n in range(count)]
    return here + there


@task
def large(size: int) -> bytes:
    return bytes(size)


@task
def repeat(text: str, times: int) -> str:
    return text * times


@task
def surroundings() -> dict[str, Any]:
    """Return what this worker process has from those that started it."""
    numbers = signal.valid_signals()
    return {
        "blocked": sorted(map(int, signal.pthread_sigmask(signal.SIG_BLOCK, ()))),
        "ignored": sorted(n for n in numbers if signal.getsignal(n) is signal.SIG_IGN),
        "directory": os.getcwd(),
        "environment": dict(os.environ),
        "path": sys.path,
        "argv": sys.argv,
        "nice": os.nice(0),
        "unbuffered": sys.__stdout__ is not None and sys.__stdout__.write_through,
    }


@task
def spin(seconds: float) -> int:
    """Keep a core busy."""
    end = time.process_time() + seconds
    n = 0
    while time.process_time() < end:
        n += 1
    return n


KEPT: list[bytearray] = []


@task
def worker_pid() -> int:
    return os.getpid()


@task
def leak(mebibytes: int) -> int:
    """Leaves memory in use when it has ended."""
    KEPT.append(bytearray(b"x") * (mebibytes * 2**20))
    return os.getpid()


@task
def take(mebibytes: int, seconds: float) -> int:
    """Takes memory for a while, and gives it back."""
    taken = bytearray(b"x") * (mebibytes * 2**20)
    time.sleep(seconds)
    return len(taken)


# --- that misbehave ----------------------------------------------------------------------------


@task
def call_sys_exit() -> None:
    sys.exit("on purpose")


@task
def call_os_exit(code: int) -> None:
    os._exit(code)


@task
def interrupt() -> None:
    raise KeyboardInterrupt("on purpose")


@task
def segfault() -> None:
    ctypes.string_at(0)


@task
def kill_myself(number: int = signal.SIGKILL) -> None:
    os.kill(os.getpid(), number)


@task
def close_descriptors() -> str:
    os.closerange(3, 4096)
    return "never seen"


@task
def fork_and_reap() -> int:
    """Forks a child that exits at once, as a library may."""
    pid = os.fork()
    if not pid:
        os._exit(7)
    return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])


@task
def fork_and_return() -> int:
    """Forks, and the child returns from the task as the parent does."""
    pid = os.fork()
    if pid:
        os.waitpid(pid, 0)
    return os.getpid()


@task
def leave_thread(path: str) -> str:
    """Start a thread that goes on when the task has ended."""
    threading.Thread(target=_log, args=(path, "from a thread")).start()
    return "done"


def _square(number: int) -> int:
    return number * number


@task
def use_multiprocessing(method: str) -> list[int]:
    context = multiprocessing.get_context(method)
    with ProcessPoolExecutor(2, mp_context=context) as pool:
        return list(pool.map(_square, range(5)))


@task
def terminate_own_child() -> int:
    """Start a process and end it by SIGTERM, which a worker itself ignores."""
    child = multiprocessing.get_context("fork").Process(target=time.sleep, args=(60,))
    child.start()
    child.terminate()
    child.join(20)
    return child.exitcode if child.exitcode is not None else 999


@task
def leave_child(gate: str) -> None:
    """Start a program that would run for long, then hold."""
    child = subprocess.Popen(["sleep", "300"])
    Path(f"{gate}.child").write_text(str(child.pid))
    hold.func(gate)


@task
def return_lock() -> Any:
    return threading.Lock()


class Odd(Exception):
    """Its text can't be had."""

    def __str__(self) -> str:
        raise RuntimeError("no text")


@task
def raise_odd() -> None:
    raise Odd


@task
def describe(value: Any) -> str:
    return type(value).__name__


@task
def take_anything(value: Any) -> None:
    pass


@task(takes_context=True)
def tick(context: TaskContext[..., Any], path: str, gate: str = "") -> None:
    """Append the time for which it runs, in Unix seconds, and when it began, to a file."""
    moment = scheduled_for(context)
    assert moment is not None
    _log(path, f"{moment.timestamp():.0f} {time.time():.3f}")
    if gate:
        hold.func(gate)
