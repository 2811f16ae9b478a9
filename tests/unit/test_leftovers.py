"""What a task leaves behind in its process, and what becomes of it."""

import atexit
import errno
import locale
import os
import resource
import signal
import time
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from django_tasks_local.pool.copies import run_exit_functions
from django_tasks_local.pool.leftovers import LONG_S, Leftovers
from tests.children import in_a_child

OOM = Path("/proc/self/oom_score_adj")
TIMERS = (signal.ITIMER_REAL, signal.ITIMER_PROF, signal.ITIMER_VIRTUAL)
HANDLED = (
    signal.SIGTERM, signal.SIGALRM, signal.SIGPROF, signal.SIGVTALRM, signal.SIGUSR1,
    signal.SIGQUIT, signal.SIGRTMAX,
)  # fmt: skip
CLAIM: Any = SimpleNamespace(result_id="an id", meta=b"tests.tasks:noop")


def lower_soft_limit() -> None:
    limit = max(map(int, os.listdir("/proc/self/fd"))) + 20  # a test run may have many open
    resource.setrlimit(
        resource.RLIMIT_NOFILE, (limit, resource.getrlimit(resource.RLIMIT_NOFILE)[1])
    )


def profile(number: int) -> None:
    signal.signal(number, lambda number, frame: None)


def mask() -> int:
    found = os.umask(0)
    os.umask(found)
    return found


def state() -> list[Any]:
    """All that is put back."""
    return [
        os.getcwd(),
        mask(),
        [signal.getitimer(which)[0] > 0 for which in TIMERS],
        [signal.getsignal(number) for number in HANDLED],
        dict(os.environ),
        time.tzname,
        locale.setlocale(locale.LC_ALL),
        [resource.getrlimit(which) for which in (resource.RLIMIT_NOFILE, resource.RLIMIT_CORE)],
        signal.pthread_sigmask(signal.SIG_BLOCK, ()),
        os.sched_getaffinity(0),
        os.sched_getscheduler(0),
        os.getpriority(os.PRIO_PROCESS, 0),
        OOM.read_text(),
        (os.getresuid(), os.getresgid(), os.getgroups()),
    ]


def alarm_left_pending() -> None:
    signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGALRM, signal.SIGUSR1])
    for number in (signal.SIGALRM, signal.SIGUSR1):
        os.kill(os.getpid(), number)


CHEAP: list[Callable[[], object]] = [
    lambda: os.chdir("/"),
    lambda: os.umask(0o777),
    lambda: signal.setitimer(signal.ITIMER_REAL, 30),
    lambda: signal.signal(signal.SIGTERM, signal.SIG_DFL),
    lambda: (profile(signal.SIGPROF), signal.setitimer(signal.ITIMER_PROF, 30)),
    lambda: (profile(signal.SIGVTALRM), signal.setitimer(signal.ITIMER_VIRTUAL, 30)),
    lambda: os.environ.update(NEW="1", HOME="/nowhere"),
    lambda: os.environ.pop("PATH"),
    lambda: (os.environ.update(TZ="Asia/Tokyo"), time.tzset()),
]
DEAR: list[Callable[[], object]] = [
    lambda: signal.setitimer(signal.ITIMER_PROF, 30),
    lambda: signal.signal(signal.SIGUSR1, signal.SIG_IGN),
    lambda: locale.setlocale(locale.LC_ALL, "C.UTF-8"),
    lower_soft_limit,
    lambda: signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGUSR2]),
    alarm_left_pending,
    lambda: signal.signal(signal.SIGQUIT, signal.SIG_IGN),
    lambda: signal.signal(signal.SIGRTMAX, signal.SIG_IGN),
    lambda: os.sched_setscheduler(0, os.SCHED_BATCH, os.sched_param(0)),
    lambda: OOM.write_text(str(int(OOM.read_text()) + 1)),
]
if len(os.sched_getaffinity(0)) > 1:
    DEAR.append(lambda: os.sched_setaffinity(0, {min(os.sched_getaffinity(0))}))
if os.geteuid() == 0:
    DEAR += [
        lambda: os.nice(1),
        lambda: os.setegid(54321),
        lambda: (os.setgroups([54321]), os.setegid(54321), os.seteuid(54321)),
    ]


@pytest.mark.parametrize("change", [*CHEAP, *DEAR])
def test_it_is_put_back(change: Callable[[], object]) -> None:
    """After each task, or after each that took a millisecond."""

    def body() -> None:
        signal.alarm(0)
        locale.setlocale(locale.LC_ALL, "C")
        leftovers = Leftovers("alias")
        before = state()
        change()
        assert state() != before
        assert leftovers.put_back(CLAIM, 0.0 if change in CHEAP else LONG_S)
        assert state() == before

    in_a_child(body)


def test_an_alarm_left_for_the_exit_functions() -> None:
    """It does not end the process in their place."""

    def body() -> None:
        atexit._clear()  # pytest's
        alarm_left_pending()
        run_exit_functions()
        assert not signal.sigpending() & {signal.SIGALRM}

    in_a_child(body)


def test_what_the_machine_has_changed(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """Fewer processors in the cpuset, say, are no task's doing: nobody is blamed."""

    def body() -> None:
        signal.alarm(0)
        leftovers = Leftovers("alias")
        for policy in (os.SCHED_BATCH, os.SCHED_OTHER):
            # As if it came back at once.
            os.sched_setscheduler(0, policy, os.sched_param(0))
            with monkeypatch.context() as patch:
                patch.setattr(os, "sched_setscheduler", lambda *_: None)
                assert leftovers.put_back(CLAIM, LONG_S)
            assert os.sched_getscheduler(0) == policy
        assert not caplog.records

    in_a_child(body)


@pytest.mark.skipif(os.geteuid() != 0, reason="needs root")
def test_privileges_that_were_given_up() -> None:
    """A process that has lost them for good is replaced."""

    def body() -> None:
        leftovers = Leftovers("alias")
        os.setgroups([54321])
        os.setgid(54321)
        os.setuid(54321)
        assert not leftovers.put_back(CLAIM, LONG_S)

    in_a_child(body)


def test_a_system_that_lacks_something(monkeypatch: pytest.MonkeyPatch) -> None:
    """What cannot be looked at is left alone: musl has no `sched_getscheduler`."""

    def refuse(*_: int) -> int:
        raise OSError(errno.ENOSYS, "Function not implemented")

    def body() -> None:
        leftovers = Leftovers("alias")
        assert leftovers.put_back(CLAIM, LONG_S)

    monkeypatch.setattr(os, "sched_getscheduler", refuse)
    in_a_child(body)


def test_a_profiler_that_runs_all_the_time_goes_on() -> None:
    """One that the project has started in its worker before the first task."""

    def body() -> None:
        profile(signal.SIGPROF)
        signal.setitimer(signal.ITIMER_PROF, 30)
        assert Leftovers("alias").put_back(CLAIM, LONG_S)
        assert signal.getitimer(signal.ITIMER_PROF)[0] > 0

    in_a_child(body)


def test_a_directory_that_is_gone(tmp_path: Path) -> None:
    """A worker whose own directory was removed goes back to it all the same."""

    def body() -> None:
        folder = tmp_path / "folder"
        folder.mkdir()
        os.chdir(folder)
        folder.rmdir()
        leftovers = Leftovers("alias")
        os.chdir("/")
        assert leftovers.put_back(CLAIM, 0.0)
        with pytest.raises(FileNotFoundError):
            os.getcwd()

    in_a_child(body)


def test_what_cannot_be_put_back() -> None:
    """Another process has to take its place."""

    def body() -> None:
        if os.geteuid() == 0:  # who may raise any limit
            os.setresuid(54321, 54321, 54321)
        leftovers = Leftovers("alias")
        resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
        soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft - 1, hard - 1))
        assert not leftovers.put_back(CLAIM, LONG_S)

    in_a_child(body)


def test_it_is_logged_once(caplog: pytest.LogCaptureFixture) -> None:
    """A task that runs each second does not fill the log."""

    def body() -> None:
        signal.alarm(0)
        leftovers = Leftovers("alias")
        for _ in range(3):
            os.umask(0o007)
            leftovers.put_back(CLAIM, 0.0)
        (record,) = caplog.records
        assert "path=tests.tasks.noop" in record.getMessage()
        assert "umask" in record.getMessage()

    in_a_child(body)
