"""Periodic tasks under real servers: who starts a pool for them, and that each time runs once."""

import json
import signal
from pathlib import Path
from typing import Any

import pytest

from django_tasks_local import ProcessPoolBackend
from django_tasks_local.ring import Look, Role, ring_exists, ring_name
from tests.process.client import fresh_namespace, reading, serving
from tests.process.programs import run
from tests.process.project import Project
from tests.process.test_local_worker import local_worker, serves
from tests.support import LONG_TIMEOUT, alive, kill, wait_for

TICK = "tests.site.tasks.tick"


def every_second(path: Path, **entry: Any) -> dict[str, Any]:
    """A schedule with one entry, whose runs leave their times in a file."""
    return {"SCHEDULE": {"tick": {"task": TICK, "every": 1, "args": [str(path)], **entry}}}


def times(path: Path) -> list[int]:
    """The times, in Unix seconds, for which it has run so far."""
    if not path.exists():
        return []
    return [int(line.split()[0]) for line in path.read_text().splitlines()]


def wait_for_times(path: Path, count: int) -> list[int]:
    """Wait until there are so many, and return them."""
    wait_for(lambda: len(times(path)) >= count, LONG_TIMEOUT, message=f"{count} times in {path}")
    return times(path)


def assert_once_per_second(found: list[int]) -> None:
    """Each second once, and none left out."""
    assert sorted(found) == list(range(min(found), max(found) + 1))


@pytest.mark.parametrize(
    "site",
    [
        {"workers": 4},
        {"workers": 4, "args": ["--preload"]},
        {"workers": 2, "server": "gevent"},
        {"workers": 1, "threads": 4},
        {"workers": 2, "server": "uvicorn", "app": "tests.site.asgi:application"},
        {"workers": 1, "server": "runserver"},
    ],
    ids=["sync", "preload", "gevent", "gthread", "uvicorn", "runserver"],
)
def test_servers_that_get_no_request(site: dict[str, Any], tmp_path: Path) -> None:
    """One pool starts all the same, and each second runs once on the host."""
    path = tmp_path / "times"
    with serving(options=every_second(path), ready_path=None, **site) as client:
        assert_once_per_second(wait_for_times(path, 4))
        assert len(client.supervisors()) == 1
        assert set(sites(client.namespace)) == set(client.site.worker_pids())
        assert "Traceback" not in client.site.log()
        assert "DeprecationWarning" not in client.site.log()


@pytest.mark.parametrize(
    "command",
    [
        ["-m", "django", "check"],
        ["-m", "django", "migrate", "--check"],
        ["-m", "django", "shell", "-c", "from tests.site import tasks"],
        ["-c", "import django; django.setup()"],
        ["-m", "gunicorn", "--check-config", "tests.site.wsgi:application"],
        ["-m", "gunicorn", "--preload", "--check-config", "tests.site.wsgi:application"],
    ],
    ids=["check", "migrate", "shell", "setup", "check-config", "preload"],
)
def test_what_is_no_server_starts_nothing(command: list[str], tmp_path: Path) -> None:
    """Nor does it make a ring."""
    options = json.dumps(every_second(tmp_path / "times"))
    with fresh_namespace() as namespace:
        code, out, err = run(namespace, command, DTL_OPTIONS=options)
        assert code == 0, out + err
        assert not ring_exists(ring_name("default", namespace))


def test_the_environment_alone_has_changed(tmp_path: Path) -> None:
    """The pool hands over to one that a server with the new SCHEDULE starts, and back again."""
    one, two = tmp_path / "one", tmp_path / "two"
    with serving(options=every_second(one), ready_path=None) as client:
        wait_for_times(one, 2)
        (pool,) = client.supervisors()
        env = {"DTL_NAMESPACE": client.namespace}
        with serving(options=every_second(two), env=env, ready_path=None) as other:
            wait_for_times(two, 2)
            wait_for(lambda: not alive(pool), LONG_TIMEOUT)
            before = times(one)
            assert_once_per_second(wait_for_times(two, 5))
            assert times(one) == before
            assert "the SCHEDULE of its newest server is another" in client.site.log()
            assert len(other.supervisors()) == 1
        assert len(wait_for_times(one, len(before) + 3)) == len(set(times(one)))


SCHEDULE_SETTINGS = """
from tests.site.settings import *

INSTALLED_APPS = ["shop", *INSTALLED_APPS]
entry = {{"task": "tests.site.tasks.tick", "every": 1, "args": [{path!r}]}}
TASKS["default"]["OPTIONS"]["SCHEDULE"] = {{"tick": entry}}
"""


def test_a_reload_with_other_settings(tmp_path: Path) -> None:
    """The new SCHEDULE holds after a reload, and no request is needed for that."""
    one, two, project = tmp_path / "one", tmp_path / "two", Project(tmp_path / "shop")
    project.write("shop_settings.py", SCHEDULE_SETTINGS.format(path=str(one)))
    with serving(env=project.env, ready_path=None) as client:
        wait_for_times(one, 2)
        (pool,) = client.supervisors()
        project.write("shop_settings.py", SCHEDULE_SETTINGS.format(path=str(two)))
        kill(client.site.pid, signal.SIGHUP)
        wait_for_times(two, 1)
        wait_for(lambda: not alive(pool), LONG_TIMEOUT)
        # Where no web worker is there for a second, the pool has gone, and the new one makes up for
        # the newest time: the entry is the same, with other arguments.
        found = times(one) + wait_for_times(two, 3)
        assert found == sorted(set(found))


def test_local_worker_takes_over_and_hands_back(tmp_path: Path) -> None:
    """Old and new pool overlap, and each second still runs once."""
    path = tmp_path / "times"
    options = every_second(path)
    with serving(options=options, ready_path=None) as client:
        wait_for_times(path, 2)
        (pool,) = client.supervisors()
        with local_worker(client.namespace, **options) as process:
            wait_for(lambda: serves(process) and not alive(pool), LONG_TIMEOUT)
            wait_for_times(path, len(times(path)) + 2)
            assert not client.supervisors()
            process.send_signal(signal.SIGTERM)
            assert process.wait(LONG_TIMEOUT) == 0
        wait_for(client.supervisors, LONG_TIMEOUT)
        assert_once_per_second(wait_for_times(path, len(times(path)) + 2))


def test_local_worker_without_a_site(tmp_path: Path) -> None:
    """A site without traffic, or without any server, has its schedule from the command."""
    path = tmp_path / "times"
    options = every_second(path)
    with fresh_namespace() as namespace, local_worker(namespace, **options) as process:
        assert_once_per_second(wait_for_times(path, 3))
        process.send_signal(signal.SIGTERM)
        assert process.wait(LONG_TIMEOUT) == 0


def test_local_worker_keeps_its_own_schedule(tmp_path: Path) -> None:
    """A server with another environment does not end it again and again; it logs a warning."""
    mine, theirs = tmp_path / "mine", tmp_path / "theirs"
    with fresh_namespace() as namespace, local_worker(namespace, **every_second(mine)) as process:
        wait_for_times(mine, 1)
        env = {"DTL_NAMESPACE": namespace}
        with serving(options=every_second(theirs), env=env, ready_path=None) as client:
            wait_for(lambda: sites(namespace), LONG_TIMEOUT)
            assert_once_per_second(wait_for_times(mine, len(times(mine)) + 3))
            assert not client.supervisors()
        process.send_signal(signal.SIGTERM)
        out, _ = process.communicate(timeout=LONG_TIMEOUT)
    assert out.count("is not that of this pool") == 1
    assert times(theirs) == []


def test_a_slow_task_that_must_not_overlap(tmp_path: Path) -> None:
    """It runs alone; what it has skipped is counted, and it goes on when it has ended."""
    path, gate = tmp_path / "times", tmp_path / "gate"
    options = every_second(path, args=[str(path), str(gate)], overlap=False)
    with serving(options=options, ready_path=None) as client, reading(client.namespace) as backend:
        wait_for_times(path, 1)
        wait_for(lambda: skipped(backend) >= 2, LONG_TIMEOUT)
        assert len(times(path)) == 1
        gate.touch()
        found = wait_for_times(path, 3)
        assert found[1] - found[0] > 2
        assert found[2] - found[1] == 1


def skipped(backend: ProcessPoolBackend) -> int:
    """How many times were skipped."""
    return sum(row.skipped for row in backend.site().ring.firing.rows().values())


def sites(namespace: str) -> list[int]:
    """Pids of the site processes."""
    look = Look.into(ring_name("default", namespace), "default")
    assert look is not None
    return [entry.pid for entry in look.attached() if entry.role is Role.SITE]
