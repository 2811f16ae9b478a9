"""A site whose ring lies in a directory: its host is restarted, its container replaced."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import pytest

from django_tasks_local.ring import ring_name, unlink_objects
from tests.children import in_a_child
from tests.mounts import take_own_processes
from tests.process.client import fresh_namespace, serving
from tests.process.programs import running
from tests.process.test_schedule import every_second, times, wait_for_times
from tests.reboots import forget_semaphores, restart
from tests.support import LONG_TIMEOUT, wait_for

LARGE = 2**20


class Place(NamedTuple):
    """A namespace, the directory of its ring, and the name of that."""

    namespace: str
    directory: str
    name: str


@pytest.fixture
def place(tmp_path: Path) -> Iterator[Place]:
    """All of the test's own."""
    directory = tmp_path / "rings"
    directory.mkdir(mode=0o700)
    with fresh_namespace() as namespace:
        name = ring_name("default", namespace, str(directory))
        yield Place(namespace, str(directory), name)
        unlink_objects(name)


def lines(path: Path) -> list[str]:
    """What tasks have noted there."""
    return path.read_text().splitlines() if path.exists() else []


def test_a_reboot(place: Place, tmp_path: Path) -> None:
    """All is killed, what lies in memory is gone, and a server goes on without any request."""
    notes, ticks, gate = tmp_path / "notes", tmp_path / "ticks", tmp_path / "gate"
    options = {"MAX_WORKERS": 1, "DIRECTORY": place.directory} | every_second(ticks)
    env = {"DTL_NAMESPACE": place.namespace}
    with serving(options=options, env=env) as client:
        small, large = client.enqueue("add", 1, 2), client.enqueue("repeat", "x", LARGE)
        assert client.value(small) == 3
        client.finished(large)
        wait_for_times(ticks, 1)
        running_id, _ = client.hold(gate)
        waiting = client.enqueue_many(3, "note", str(notes))
        later = client.enqueue("note", str(notes), using={"run_after_s": 2})
        client.site.kill_all()
    restart(place.name)
    before = times(ticks)
    with serving(options=options, env=env, ready_path=None) as client:
        wait_for(lambda: len(lines(notes)) == 4, LONG_TIMEOUT, message="all that waited")
        assert sorted(lines(notes)) == sorted([*waiting, later])
        path, text = client.error(running_id)
        assert path.endswith(".WorkerLost")
        assert "the host was restarted" in text
        assert client.value(small) == 3
        assert client.value(large) == "x" * LARGE
        after = wait_for_times(ticks, len(before) + 2)
        assert len(set(after)) == len(after)
        assert client.site.log().count("the host was restarted since; found") == 1


PROGRAM = """
import sys, django
django.setup()
from django.tasks import default_task_backend
from tests.site import tasks
from tests.support import wait_for
gate, notes, *ids = sys.argv[1:]
if not ids:
    done = tasks.add.enqueue(1, 2)
    done.wait_finished(50)
    held = tasks.hold.enqueue(gate)
    wait_for(lambda: held.refresh() or held.status == "RUNNING")
    print(done.id, held.id, tasks.note.enqueue(notes).id, flush=True)
    sys.stdin.read()
found = [default_task_backend.get_result(each) for each in ids]
tasks.note.enqueue(notes, "new").wait_finished(50)
for each in found:
    each.wait_finished(50)
print(found[0].return_value, found[1].errors[0].exception_class_path, found[2].status, flush=True)
"""


def container() -> list[str]:
    """A command that runs another in a container, as far as this machine lets us."""
    try:
        in_a_child(take_own_processes)
    except AssertionError:
        return []
    unshare = ["unshare", "--pid", "--ipc", "--mount", "--mount-proc", "--fork", "--kill-child"]
    shell = 'mount -t tmpfs none /dev/shm && exec "$@"'
    return [*unshare, "sh", "-c", shell, "sh"]


def test_a_new_container(place: Place, tmp_path: Path) -> None:
    """With the same volume, when the one before was killed: the boot is the same, memory is not."""
    notes, namespace = tmp_path / "notes", place.namespace
    options = json.dumps({"MAX_WORKERS": 1, "DIRECTORY": place.directory})
    arguments = ["-c", PROGRAM, str(tmp_path / "gate"), str(notes)]
    before = container()
    with running(namespace, arguments, before=before, DTL_OPTIONS=options) as process:
        assert process.stdout is not None
        ids = process.stdout.readline().split()
        assert len(ids) == 3, process.stderr
        process.kill()
        process.wait()
    if not before:
        forget_semaphores(place.name)
    arguments += ids
    with running(namespace, arguments, before=before, DTL_OPTIONS=options) as process:
        out, err = process.communicate(timeout=LONG_TIMEOUT)
    assert out.split() == ["3", "django_tasks_local.exceptions.WorkerLost", "SUCCESSFUL"], err
    assert sorted(lines(notes)) == sorted([ids[2], "new"])
