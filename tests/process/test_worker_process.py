"""A worker as a process among copies: what it does at its start, between two tasks, at its end."""

from pathlib import Path

import pytest

from tests.process.client import gone, serving
from tests.process.project import Project
from tests.support import LONG_TIMEOUT, kill, wait_for

TASKS = """
import atexit, os, random, signal
from django.db import connection, transaction
from django.dispatch import receiver
from django.tasks import task
from django_tasks_local.signals import worker_started
from tests.site.tasks import hold

FILE = {file!r}
GENERATOR = random.Random()
BUFFER = []


def write(line):
    with open(FILE, "a") as file:
        file.write(f"{{line}} {{os.getpid()}}\\n")


@receiver(worker_started)
def reseed(alias, **kwargs):
    GENERATOR.seed()
    write(f"started {{alias}}")


def at_set_up():
    write("set-up")


atexit.register(at_set_up)


@task
def draw(gate):
    hold.func(gate)
    return [os.getpid(), GENERATOR.random(), random.random()]


@task
def buffer(number):
    if not BUFFER:
        atexit.register(lambda: write(f"buffer {{BUFFER}}"))
    BUFFER.append(number)
    return os.getpid()


@task
def hang_at_exit():
    atexit.register(signal.pause)
    return os.getpid()


@task
def talk(text, end="\\n"):
    print(text, end=end)


@task
def leave_transaction():
    transaction.atomic().__enter__()
    connection.cursor().execute("select 1")


@task
def leave_closed_transaction():
    leave_transaction.func()
    connection.close()


@task
def ask():
    with connection.cursor() as cursor:
        cursor.execute("select 42")
        return [os.getpid(), cursor.fetchone()[0]]
"""

SETTINGS = """
from tests.site.settings import *

INSTALLED_APPS = ["shop", *INSTALLED_APPS]
# As most projects have it: without "disable_existing_loggers".
LOGGING = {
    "version": 1,
    "handlers": {"console": {"class": "logging.StreamHandler"}},
    "root": {"handlers": ["console"], "level": "INFO"},
}
"""
STUBBORN = """
import threading
from tests.site.settings import _in_pool
if _in_pool:
    threading.Thread(target=threading.Event().wait).start()
"""


def project(folder: Path, settings: str = "") -> tuple[dict[str, str], Path]:
    """The environment of a site with these tasks, and the file that they write to."""
    made = Project(folder)
    made.write("shop_settings.py", SETTINGS + settings)
    file = folder / "file"
    file.touch()
    made.write("shop/tasks.py", TASKS.format(file=str(file)))
    return made.env | {"DTL_DB": str(folder / "db.sqlite3"), "PYTHONUNBUFFERED": ""}, file


@pytest.mark.parametrize("workers", ["forked", "fresh"])
def test_no_twins(tmp_path: Path, workers: str) -> None:
    """`worker_started` is sent once in each worker; `random` needs it not."""
    env, file = project(tmp_path)
    env |= {"DTL_THREAD": "1"} if workers == "fresh" else {}
    gate = tmp_path / "gate"
    with serving(workers=1, env=env, options={"MAX_WORKERS": 2}) as client:
        ids = [client.enqueue("shop.tasks.draw", str(gate)) for _ in range(2)]
        wait_for(lambda: len(list(tmp_path.glob("gate.*"))) == 2, LONG_TIMEOUT)
        gate.touch()
        pids, ours, pythons = zip(*map(client.value, ids), strict=True)
        assert len(set(pids)) == len(set(ours)) == len(set(pythons)) == 2
        client.run("shop.tasks.ask")
        lines = [line for line in file.read_text().splitlines() if line.startswith("started")]
        assert sorted(lines) == sorted(f"started default {pid}" for pid in pids)


def test_exit_functions(tmp_path: Path) -> None:
    """Those of a task and those of set-up run in each worker that ends in order."""
    env, file = project(tmp_path)
    with serving(workers=1, env=env, options={"MAX_WORKERS": 1}) as client:
        (pid,) = {client.run("shop.tasks.buffer", number) for number in range(3)}
        (pool,) = client.supervisors()
    wait_for(lambda: gone(pid, pool))
    lines = file.read_text().splitlines()
    assert f"buffer [0, 1, 2] {pid}" in lines
    assert {f"set-up {pid}", f"set-up {pool}"} <= set(lines)


def test_an_exit_function_that_hangs(tmp_path: Path) -> None:
    """It has some seconds; then its worker is killed, and the log says where it was."""
    env, _ = project(tmp_path)
    with serving(workers=1, env=env, options={"MAX_WORKERS": 1}) as client:
        pid = client.run("shop.tasks.hang_at_exit")
    assert gone(pid)
    assert "its exit functions took longer than 5 s" in client.site.log()
    assert "run_exit_functions" in client.site.log()


@pytest.mark.parametrize("workers", ["forked", "fresh"])
def test_logging_that_disables_loggers(tmp_path: Path, workers: str) -> None:
    """A LOGGING without "disable_existing_loggers" has failed and lost tasks in it all the same."""
    env, _ = project(tmp_path)
    env |= {"DTL_THREAD": "1"} if workers == "fresh" else {}
    with serving(workers=1, env=env, options={"MAX_WORKERS": 1}) as client:
        client.fails("interrupt")
        wait_for(lambda: client.site.log().count("Traceback") == 1)
        lost = client.enqueue("kill_myself", 9)
        client.error(lost)
        line = f"Task id={lost} path=tests.site.tasks.kill_myself was lost: Worker process "
        wait_for(lambda: line in client.site.log())
        assert "was killed by SIGKILL" in client.site.log().partition(line)[2]


def test_a_pool_that_is_killed(tmp_path: Path) -> None:
    """Is in the log of its site, and so is each task that it took with it."""
    env, _ = project(tmp_path)
    gate = tmp_path / "gate"
    with serving(workers=1, env=env) as client:
        running, _ = client.hold(gate)
        (pool,) = client.supervisors()
        kill(pool)
        wait_for(lambda: f"the pool (pid {pool}) was killed by signal 9" in client.site.log())
        wait_for(lambda: f"the pool (pid {pool}) died" in client.site.log())
        line = f"Task id={running} path=tests.site.tasks.hold was lost: Worker process "
        wait_for(lambda: client.site.log().count(line) == 1)
        assert "together with its pool" in client.site.log().partition(line)[2]


def test_a_thread_that_set_up_leaves_running(tmp_path: Path) -> None:
    """No daemon: neither a worker nor the pool waits for it for ever."""
    env, _ = project(tmp_path, STUBBORN)
    with serving(workers=1, env=env, end_timeout_s=LONG_TIMEOUT) as client:
        client.run("add", 1)


def test_print(tmp_path: Path) -> None:
    """What a task prints is in the log when it has ended, and not lost with its worker."""
    env, _ = project(tmp_path)
    with serving(workers=1, env=env, options={"MAX_WORKERS": 1}) as client:
        client.run("shop.tasks.talk", "a task says this")
        client.run("shop.tasks.talk", "and that", end="")
        wait_for(lambda: "a task says this\n" in client.site.log())
        wait_for(lambda: "and that" in client.site.log())


def test_an_open_transaction(tmp_path: Path) -> None:
    """It is rolled back and logged, and the next task in that process has a whole connection."""
    env, _ = project(tmp_path)
    with serving(workers=1, env=env, options={"MAX_WORKERS": 1}) as client:
        before = client.run("shop.tasks.ask")
        for name in ("leave_transaction", "leave_closed_transaction"):
            client.run(f"shop.tasks.{name}")
            assert client.run("shop.tasks.ask") == before
            line = f"path=shop.tasks.{name} left a transaction open on the database 'default'"
            assert client.site.log().count(line) == 1
