"""What a task leaves behind in its process, and what becomes of it."""

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

from django_tasks_local.pool.leftovers import LONG_S, Leftovers
from tests.children import in_a_child

TIMERS = (signal.ITIMER_REAL, signal.ITIMER_PROF, signal.ITIMER_VIRTUAL)
HANDLED = (
    signal.SIGTERM, signal.SIGALRM, signal.SIGPROF, signal.SIGVTALRM, signal.SIGUSR1,
)  # fmt: skip
CLAIM: Any = SimpleNamespace(result_id="an id", meta=b"tests.tasks:noop")


def lower_soft_limit() -> None:
    resource.setrlimit(resource.RLIMIT_NOFILE, (50, resource.getrlimit(resource.RLIMIT_NOFILE)[1]))


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
    ]


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
