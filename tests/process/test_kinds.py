"""Servers without requests, and scripts that look like servers: who waits at exit."""

import signal
from collections.abc import Iterator
from pathlib import Path
from textwrap import dedent

import pytest

from tests.process.client import environment, fresh_namespace, worker_at
from tests.process.programs import run, running
from tests.support import LONG_TIMEOUT

WEBSOCKETS = """
import asyncio
import signal
import sys

from django.core.asgi import get_asgi_application

application = get_asgi_application()
from tests.site.tasks import hold


async def serve():
    stop = asyncio.Event()
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, stop.set)
    await hold.aenqueue(sys.argv[1])
    await stop.wait()


asyncio.run(serve())
"""
TEST_CLIENT = """
import django

django.setup()
from django.test import AsyncClient, Client
from asgiref.sync import async_to_sync
from tests.site.tasks import note

if __name__ == "__main__":
    Client().get("/")
    async_to_sync(AsyncClient().get)("/")
    for _ in range(3):
        note.enqueue({log!r})
"""
AT_EXIT = """
import atexit


def last():
    note.enqueue({log!r})


if {early}:
    atexit.register(last)
import django

django.setup()
from tests.site.tasks import note

if not {early}:
    atexit.register(last)
"""
NO_THREADS = """
import threading
from wsgiref.util import setup_testing_defaults

from django.core.wsgi import get_wsgi_application


def start(self):
    raise RuntimeError("can't start new thread")


threading.Thread.start = start
application = get_wsgi_application()
from tests.site.tasks import add
from tests.site.waiting import finished

environ = {}
setup_testing_defaults(environ)
application(environ, lambda status, headers: print(status.split()[0]))
print(finished(add.enqueue(1, 2)))
"""


@pytest.fixture
def namespace() -> Iterator[str]:
    """One of this test's own."""
    with fresh_namespace() as name:
        yield name


def program(folder: Path, text: str, **values: object) -> str:
    """A file with a program."""
    path = folder / "program.py"
    path.write_text(dedent(text.format(**values) if values else text))
    return str(path)


def test_a_server_of_websockets_ends_at_once(namespace: str, tmp_path: Path) -> None:
    """It never sees an HTTP request, and leaves its tasks to the pool all the same."""
    gate = tmp_path / "gate"
    arguments = [program(tmp_path, WEBSOCKETS), str(gate)]
    settings = environment(namespace, DRAIN_TIMEOUT=0)
    with running(namespace, arguments, **settings) as process:
        worker_at(gate)
        process.send_signal(signal.SIGTERM)
        _, err = process.communicate(timeout=LONG_TIMEOUT)
        assert process.returncode == 0
        assert "waiting for" not in err


def test_the_test_client_makes_no_server(namespace: str, tmp_path: Path) -> None:
    """A script that calls its own views with it still waits for its tasks."""
    log = tmp_path / "log"
    arguments = [program(tmp_path, TEST_CLIENT, log=str(log))]
    status, _, err = run(namespace, arguments, **environment(namespace, DRAIN_TIMEOUT=0))
    assert status == 0, err
    assert "waiting for" in err
    assert len(log.read_text().split()) == 3


@pytest.mark.parametrize("early", [True, False])
def test_the_first_task_at_exit(namespace: str, tmp_path: Path, early: bool) -> None:
    """Whether its hook was set before ours or after: it runs, and the script waits for it."""
    log = tmp_path / "log"
    arguments = [program(tmp_path, AT_EXIT, log=str(log), early=early)]
    status, _, err = run(namespace, arguments, **environment(namespace, DRAIN_TIMEOUT=0))
    assert status == 0, err
    assert "Traceback" not in err
    assert len(log.read_text().split()) == 1


def test_no_thread_can_be_started(namespace: str, tmp_path: Path) -> None:
    """A request is answered, and a task runs: calls look after the pool."""
    status, out, err = run(namespace, [program(tmp_path, NO_THREADS)])
    assert status == 0, err
    assert out.split() == ["200", "3"]
    assert err.count("no thread can be started to look after the pool") >= 1
