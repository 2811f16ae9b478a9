"""The tests' own machinery: a guard that lets everything pass would go unnoticed."""

import mmap
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from uuid import uuid4

import posix_ipc
import pytest

from tests import support
from tests.leaks import Watch
from tests.timelimit import Alarm, TimeLimit

SHORT_S = 0.2


@contextmanager
def program(source: str) -> Iterator[subprocess.Popen[str]]:
    """A Python process in a session of its own, as a pool is; ended at the end in any case."""
    command = [sys.executable, "-c", source]
    with subprocess.Popen(
        command, stdout=subprocess.PIPE, text=True, start_new_session=True
    ) as process:
        try:
            yield process
        finally:
            process.kill()


def test_wait_for_reports_the_last_value() -> None:
    """A wait in vain says for what it waited, how long, and what it saw last."""
    with pytest.raises(AssertionError, match=r"0\.2 s for a moon; the last value was \[\]"):
        support.wait_for(list, SHORT_S, message="a moon")


def test_wait_for_returns_what_it_waited_for() -> None:
    """What the predicate returned comes back, so that it need not be asked again."""
    values = iter([0, None, "", "here"])
    assert support.wait_for(lambda: next(values)) == "here"


def test_a_process_left_behind_is_named_and_ended() -> None:
    """A process that outlives its test is found, though it left our session, and killed."""
    watch = Watch()
    with program("import signal; print(flush=True); signal.pause()") as process:
        assert process.stdout is not None
        process.stdout.readline()
        assert f"pid {process.pid} " in watch.remove_what_is_left(SHORT_S)
        assert not support.alive(process.pid)
    assert watch.remove_what_is_left() == ""


def test_an_orphan_is_found_by_its_mark() -> None:
    """A process whose parent is gone is still one of ours."""
    watch = Watch()
    # Its environment is there to be read once it runs, a moment after Popen has returned.
    child = "import os, signal; print(os.getpid(), flush=True); signal.pause()"
    source = f"import subprocess, sys; subprocess.Popen([sys.executable, '-c', {child!r}])"
    with program(source) as parent:
        assert parent.stdout is not None
        pid = int(parent.stdout.readline())
        parent.wait()
        assert f"pid {pid} " in watch.remove_what_is_left(SHORT_S)
    assert not support.alive(pid)


def test_a_forked_child_is_found_by_descent() -> None:
    """A process that only forked bears no mark, yet is ours."""
    watch = Watch()
    pid = os.fork()
    if pid == 0:
        while True:
            signal.pause()
    assert f"pid {pid} " in watch.remove_what_is_left(SHORT_S)
    os.waitpid(pid, 0)


def test_an_object_left_behind_is_named_and_removed() -> None:
    """An object in /dev/shm that this process has mapped is found and removed."""
    watch = Watch()
    name = f"dtl-{os.geteuid()}-{uuid4().hex[:12]}s"
    memory = posix_ipc.SharedMemory(f"/{name}", posix_ipc.O_CREAT, size=mmap.PAGESIZE)
    with mmap.mmap(memory.fd, mmap.PAGESIZE):
        memory.close_fd()
        assert f"/dev/shm/{name}" in watch.remove_what_is_left(SHORT_S)
    assert name not in support.shm_objects()


def test_an_object_of_others_is_let_be(monkeypatch: pytest.MonkeyPatch) -> None:
    """An object that no process of ours has mapped may be another program's: it stays."""
    monkeypatch.delenv("CI", raising=False)
    watch = Watch()
    name = f"dtl-{os.geteuid()}-{uuid4().hex[:12]}s"
    posix_ipc.SharedMemory(f"/{name}", posix_ipc.O_CREAT, size=mmap.PAGESIZE).close_fd()
    try:
        assert watch.remove_what_is_left(SHORT_S) == ""
        assert name in support.shm_objects()
    finally:
        support.unlink_shm({name})


@pytest.fixture
def stacks(alarm: Alarm, tmp_path: Path) -> Iterator[Path]:
    """Where the stacks of a test go that is meant to run into its limit."""
    path = tmp_path / "stacks"
    with path.open("w") as file:
        alarm.dump_to(file)
        yield path
        alarm.dump_to(alarm.stderr)


def test_a_hanging_test_fails(alarm: Alarm, stacks: Path) -> None:
    """The time limit dumps all stacks and ends a wait, with no Exception that could be caught."""
    assert not issubclass(TimeLimit, Exception)
    with pytest.raises(TimeLimit), alarm.limit(SHORT_S):
        signal.pause()
    assert "in test_a_hanging_test_fails" in stacks.read_text()


@pytest.mark.usefixtures("stacks")
def test_a_wait_that_swallows_signals_is_interrupted(
    alarm: Alarm, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Where posix_ipc swallows the first alarm's exception, the second finds another way."""
    monkeypatch.setattr("tests.timelimit.AGAIN_S", SHORT_S)
    with pytest.raises(TimeLimit), alarm.limit(SHORT_S):
        wait_for_a_token_that_never_comes()


def wait_for_a_token_that_never_comes() -> None:
    """Waits as the package's lock does: a signal is a reason to wait again."""
    name = f"/dtl-{os.geteuid()}-{uuid4().hex[:12]}m"
    semaphore = posix_ipc.Semaphore(name, posix_ipc.O_CREX)
    semaphore.unlink()
    while True:
        with suppress(posix_ipc.SignalError):
            semaphore.acquire()
