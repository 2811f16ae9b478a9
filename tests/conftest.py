"""Settings, a time limit for every test, and the proof that none leaves anything behind."""

import os
import signal
from collections import defaultdict
from collections.abc import Generator, Iterator
from operator import itemgetter
from pathlib import Path
from types import FrameType
from typing import Any
from uuid import uuid4

import django
import pytest

if os.environ.get("DTL_TESTS_ADDED_FIELD"):
    import tests.later_django  # noqa: F401 # before what looks at Django's TaskResult

from tests import support
from tests.leaks import Watch, remove_objects
from tests.reboots import RingsOnDisk
from tests.timelimit import LIMIT_S, Alarm

# What the model's rules compare is shown where it differs, as in a test.
pytest.register_assert_rewrite("tests.model")
RUN_PID = os.getpid()
ALARM = pytest.StashKey[Alarm]()

os.environ[support.MARK] = uuid4().hex
os.environ["DJANGO_SETTINGS_MODULE"] = "tests.settings"


def pytest_configure(config: pytest.Config) -> None:
    """Set Django up, and get the alarm ready."""
    django.setup()
    config.stash[ALARM] = Alarm()
    config.add_cleanup(config.stash[ALARM].close)
    signal.signal(signal.SIGTERM, _end_in_order)
    # What a shell script runs in the background ignores these, and so would all that tests start.
    for number, handler in (
        (signal.SIGINT, signal.default_int_handler), (signal.SIGQUIT, signal.SIG_DFL),
    ):  # fmt: skip
        if signal.getsignal(number) is signal.SIG_IGN:
            signal.signal(number, handler)


def _end_in_order(signum: int, frame: FrameType | None) -> None:
    """End the run as Ctrl-C does, and so with what the tests have to clean up."""
    if os.getpid() == RUN_PID:
        pytest.exit("SIGTERM", returncode=pytest.ExitCode.INTERRUPTED)
    signal.signal(signum, signal.SIG_DFL)  # a child that a test forked
    signal.raise_signal(signum)


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """Print how long the tests of each folder took, including setting up and cleaning up."""
    seconds: defaultdict[str, float] = defaultdict(float)
    for reports in terminalreporter.stats.values():
        for report in reports:
            if isinstance(report, pytest.TestReport):
                seconds["/".join(report.nodeid.split("/")[:2])] += report.duration
    terminalreporter.section("time of each folder")
    for folder, taken in sorted(seconds.items(), key=itemgetter(1), reverse=True):
        terminalreporter.line(f"{taken:7.1f} s  {folder}")


def _limited(item: pytest.Item) -> Generator[None, Any, Any]:
    marker = item.get_closest_marker("time_limit")
    with item.config.stash[ALARM].limit(marker.args[0] if marker else LIMIT_S):
        return (yield)


@pytest.hookimpl(wrapper=True)
def pytest_runtest_setup(item: pytest.Item) -> Generator[None, Any, Any]:
    """Limits the time of a test's fixtures."""
    return (yield from _limited(item))


@pytest.hookimpl(wrapper=True)
def pytest_runtest_call(item: pytest.Item) -> Generator[None, Any, Any]:
    """Limits the time of the test itself."""
    return (yield from _limited(item))


@pytest.hookimpl(wrapper=True)
def pytest_runtest_teardown(item: pytest.Item) -> Generator[None, Any, Any]:
    """Limits the time of its cleaning up."""
    return (yield from _limited(item))


@pytest.fixture
def alarm(request: pytest.FixtureRequest) -> Alarm:
    """Provide the limit of this test's time."""
    return request.config.stash[ALARM]


@pytest.fixture(autouse=True)
def leaves_nothing() -> Iterator[None]:
    """Fails a test that leaves a process or an object in /dev/shm, and removes what it left."""
    watch = Watch()
    yield
    left = watch.remove_what_is_left()
    if left:
        pytest.fail(f"this test left behind:\n{left}")


@pytest.fixture
def namespace() -> Iterator[str]:
    """Provide a NAMESPACE of this test's own; remove its rings and end its pools at the end.

    For tests whose rings outlive their processes by design. What makes them must be closed first:
    a site that is still attached would make its ring anew.
    """
    name = f"test-{uuid4().hex}"
    yield name
    remove_objects(name)


@pytest.fixture
def on_disk(tmp_path: Path) -> Iterator[RingsOnDisk]:
    """Return a ring of the test's own in a directory; no process is attached to it yet."""
    made = RingsOnDisk(tmp_path)
    yield made
    made.close()
