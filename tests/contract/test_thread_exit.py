"""The end of a process that uses ThreadPoolBackend."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.contract.thread_scripts import BEGINNING, script
from tests.support import ROOT

UNDER_AUTORELOAD = """
import threading
rest = threading.Event().wait
threading.Thread(target=rest, name='django-main-thread', daemon=True).start()
"""


def test_waits_at_exit_for_what_runs_and_waits() -> None:
    """The process ends when its running and its waiting tasks have ended."""
    seconds, output = script(
        """
for n in range(6):
    on(tasks.note).enqueue("/dev/stdout", f"task {n}")
on(tasks.nap).enqueue(0.5)
"""
    )
    assert sorted(line for line in output.splitlines() if "task" in line) == [
        f"task {n}" for n in range(6)
    ]
    assert seconds > 0.5


def test_waits_no_longer_than_drain_timeout() -> None:
    """After DRAIN_TIMEOUT the process ends, and says what was cut off."""
    seconds, output = script("on(tasks.nap).enqueue(30)", drain=0.2)
    assert seconds < 15
    assert "DRAIN_TIMEOUT (0.2 s) is over, and 1 running task cut off: tests.tasks.nap" in output


@pytest.mark.parametrize(
    ("ending", "status"), [("", 0), ("sys.exit(3)", 3), ("raise LookupError('mine')", 1)]
)
def test_prints_when_drain_timeout_is_over(ending: str, status: int) -> None:
    """A task that writes is interrupted, and the process ends with a status of its own."""
    code = f"""{BEGINNING}
import atexit
atexit.register(print, "at exit")
settings.TASKS["thread"]["OPTIONS"] = {{"MAX_WORKERS": 4, "DRAIN_TIMEOUT": 0.2}}
for n in range(4):
    on(tasks.print_for_ever).enqueue(f"row of task {{n}}")
{ending}
"""
    for _ in range(3):
        done = subprocess.run(
            [sys.executable, "-c", code],
            env={**os.environ, "PYTHONPATH": str(ROOT), "PYTHONUNBUFFERED": ""},
            capture_output=True,  # a pipe, so that writes take their time
            text=True,
            timeout=60,
        )
        assert done.returncode == status, done.stderr
        assert "4 running tasks cut off" in done.stderr
        assert done.stdout.endswith("at exit\n")


STUBBORN = """
from django.tasks import task
def repeat(write):
    while True:
        try:
            while True:
                write()
        except BaseException:
            pass
@task
def to_stdout():
    repeat(lambda: print('row'))
@task
def to_stderr():
    repeat(lambda: print('row', file=sys.stderr))
@task
def to_a_stream_that_it_has():
    out = sys.stdout
    repeat(lambda: print('row', file=out))
@task
def to_a_file():
    global file
    file = open(os.devnull, "w")
    repeat(lambda: print('row', file=file, flush=True))
import atexit
atexit.register(print, "at exit\\n", end="")
sys.stdout.write("in the buffer")
"""


@pytest.mark.parametrize("task", ["to_stdout", "to_stderr", "to_a_stream_that_it_has", "to_a_file"])
@pytest.mark.parametrize(("ending", "status"), [("", 0), ("sys.exit(3)", 3)])
def test_a_task_that_no_exception_ends(task: str, ending: str, status: int) -> None:
    """The process ends in order all the same: exit functions, buffers and status are its own.

    The line at exit is one write. `print` makes two of a line and its end, and without a buffer the
    row of a task that goes on may come between them, as with ``python -u``.
    """
    code = f"{STUBBORN}on({task}).enqueue()\n{ending}"
    _, output = script(code, drain=0.2, status=status, PYTHONUNBUFFERED="")
    assert "1 running task cut off" in output
    assert "in the buffer" in output
    assert "at exit\n" in output


def test_autoreload_with_a_task_that_prints() -> None:
    """The status by which the reloader knows that a file has changed is not lost."""
    code = f"{UNDER_AUTORELOAD}{STUBBORN}on(to_stdout).enqueue()\nsys.exit(3)"
    script(code, drain=None, RUN_MAIN="true", status=3, PYTHONUNBUFFERED="")


def test_interrupted_tasks_clean_up(tmp_path: Path) -> None:
    """What a cut-off task has to put right it can; one of a closed pool is cut off as well."""
    _, output = script(
        """
from tests.support import wait_for
gate = sys.argv[1]
on(tasks.work_until_interrupted).enqueue(gate)
wait_for(Path(gate).exists)
on(tasks.nothing).get_backend().close()
""",
        tmp_path / "gate",
        drain=0.2,
    )
    assert "1 running task cut off: tests.tasks.work_until_interrupted" in output
    assert "cleaned up after SystemExit" in output


def test_deferred_tasks_are_not_waited_for() -> None:
    """What falls due later than the exit is dropped, with a warning that names it."""
    seconds, output = script("on(tasks.nap, run_after=timedelta(hours=1)).enqueue(0)", drain=None)
    assert seconds < 15
    assert "closed: 1 task waiting, which will not run: tests.tasks.nap id=" in output


def test_autoreload_does_not_wait() -> None:
    """Under runserver's reloader nobody waits for tasks."""
    code = UNDER_AUTORELOAD + "on(tasks.nap).enqueue(30)"
    seconds, _ = script(code, drain=None, RUN_MAIN="true")
    assert seconds < 15


def test_what_runserver_starts_does_wait() -> None:
    """A command that a view runs has autoreload's variable, and is not what is restarted."""
    seconds, output = script("on(tasks.nap).enqueue(30)", drain=0.5, RUN_MAIN="true")
    assert seconds > 0.5
    assert "1 running task cut off: tests.tasks.nap" in output


@pytest.mark.skipif(
    sys.version_info < (3, 12, 3), reason="there no thread can be started once exit has begun"
)
def test_async_tasks_may_use_executors_at_exit() -> None:
    """During the wait at exit an async task still gets its event loop's executor."""
    _, output = script("on(tasks.nap_in_executor).enqueue(0.3, '/dev/stdout')")
    assert "rested" in output
