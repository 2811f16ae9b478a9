"""New code on the disk is what runs new tasks; what runs goes on with the old."""

import os
import signal
from pathlib import Path

from tests.process.client import Client, gone, serving, worker_at
from tests.process.project import Project
from tests.support import LONG_TIMEOUT, alive, kill, stays, wait_for

VERSION, LATE, HOLD = "shop.tasks.version", "shop.tasks.late_version", "shop.tasks.hold"


def reload(client: Client) -> None:
    """SIGHUP, as `systemctl reload` sends it; returns when all web workers are new."""
    before = client.site.worker_pids()
    kill(client.site.pid, signal.SIGHUP)
    wait_for(lambda: gone(*before) and len(client.site.worker_pids()) == len(before), LONG_TIMEOUT)


def test_a_reload_brings_new_code(tmp_path: Path) -> None:
    """After SIGHUP the next task runs on the new code, while one that runs ends on the old."""
    project, gate = Project(tmp_path / "shop"), tmp_path / "gate"
    with serving(workers=2, env=project.env) as client:
        assert client.run(VERSION) == "one"
        (old,) = client.supervisors()
        running = client.enqueue(HOLD, str(gate))
        worker = worker_at(gate)
        client.every_answer(running)
        wait_for(client.all_compared, LONG_TIMEOUT)  # no web worker attaches after the change
        project.change("two")
        assert client.run(VERSION) == "one"  # nobody was told to reload
        reload(client)
        wait_for(lambda: len(client.supervisors()) == 2, LONG_TIMEOUT)  # without any request
        assert client.run(VERSION) == "two"
        assert client.run(LATE) == "two"
        assert alive(worker)
        assert client.status(running) == "RUNNING"
        (new,) = set(client.supervisors()) - {old}
        gate.touch()
        assert client.value(running) == "one"
        wait_for(lambda: client.supervisors() == [new])


def test_a_reload_renews_what_a_task_imported(tmp_path: Path) -> None:
    """A change in a module that only a task imports makes new workers, not a new pool."""
    project, gate = Project(tmp_path / "shop"), tmp_path / "gate"
    with serving(workers=1, env=project.env, options={"MAX_WORKERS": 2}) as client:
        # A pool with nothing to do might end before a slow reload is over.
        running = client.enqueue(HOLD, str(gate))
        worker_at(gate)
        assert client.run(LATE) == "one"
        pools, workers = client.supervisors(), client.workers()
        project.change_late("two")
        reload(client)
        assert client.run(LATE) == "two"
        assert client.supervisors() == pools
        assert client.workers() != workers
        gate.touch()
        assert client.value(running) == "one"


def test_a_new_module_needs_no_new_pool(tmp_path: Path) -> None:
    """A task in a file that was not there when the pool started."""
    project = Project(tmp_path / "shop")
    with serving(workers=1, env=project.env) as client:
        assert client.run(VERSION) == "one"
        project.write(
            "shop/added.py", "from django.tasks import task\n\n@task\ndef added():\n    return 1\n"
        )
        reload(client)
        assert client.run("shop.added.added") == 1


def test_a_deploy_to_a_new_directory(tmp_path: Path) -> None:
    """A symbolic link that points elsewhere: same ring, new code, and the path is the new one."""
    first, second = Project(tmp_path / "1", "one"), Project(tmp_path / "2", "two")
    for name in ("shop/tasks.py", "shop/late.py", "shop/__init__.py", "shop_settings.py"):
        stamp = (first.folder / name).stat().st_mtime_ns
        os.utime(second.folder / name, ns=(stamp, stamp))  # as rsync -t leaves them
    link, gate = tmp_path / "current", tmp_path / "gate"
    link.symlink_to(first.folder)
    env = first.env | {"PYTHONPATH": first.env["PYTHONPATH"].replace(str(first.folder), str(link))}
    with serving(workers=2, env=env) as client:
        assert client.run(VERSION) == "one"
        running = client.enqueue(HOLD, str(gate))
        worker_at(gate)
        new = tmp_path / "new"
        new.symlink_to(second.folder)
        new.rename(link)
        reload(client)
        assert client.run(VERSION) == "two"
        assert client.status(running) == "RUNNING"
        gate.touch()
        assert client.value(running) == "one"


def test_gunicorn_reload(tmp_path: Path) -> None:
    """With --reload an edit is enough."""
    project = Project(tmp_path / "shop")
    with serving(workers=1, env=project.env, args=["--reload"]) as client:
        assert client.run(VERSION) == "one"
        web = client.site.worker_pids()
        # Its reloader looks once a second, and must have seen the file that it is to see changed.
        stays(lambda: client.site.worker_pids() == web, 2.5)
        project.change("two")
        wait_for(lambda: gone(*web) and client.site.worker_pids(), LONG_TIMEOUT)
        assert client.run(VERSION) == "two"


def test_runserver_autoreload(tmp_path: Path) -> None:
    """An edit restarts the server; the task that runs is left alone, the next one is new."""
    project, gate = Project(tmp_path / "shop"), tmp_path / "gate"
    with serving(server="runserver", env=project.env, cwd=project.folder) as client:
        assert client.run(VERSION) == "one"
        running = client.enqueue(HOLD, str(gate))
        worker = worker_at(gate)
        web = client.site.worker_pids()
        stays(lambda: client.site.worker_pids() == web, 2.5)  # as above
        for version in ("two", "three"):
            edit_until_reloaded(project, version, client)
            wait_for(lambda: answers(client), LONG_TIMEOUT)
            assert client.run(VERSION) == version
        assert alive(worker)
        gate.touch()
        assert client.value(running) == "one"


def edit_until_reloaded(project: Project, version: str, client: Client) -> None:
    """Writes the file again and again: the reloader misses what happens before its first look."""
    web = client.site.worker_pids()

    def reloaded() -> bool:
        if gone(*web):
            return bool(client.site.worker_pids())
        project.change(version)
        return False

    wait_for(reloaded, LONG_TIMEOUT)


def answers(client: Client) -> bool:
    """Whether somebody serves."""
    try:
        return client.site.get("/")[0] == 200
    except OSError:
        return False


def test_workers_of_old_and_new_pool_share_the_limit(tmp_path: Path) -> None:
    """MAX_WORKERS = 2 holds across a hand-over: the new pool gets what the old one has not."""
    project, gate, other = Project(tmp_path / "shop"), tmp_path / "gate", tmp_path / "other"
    with serving(workers=1, env=project.env, options={"MAX_WORKERS": 2}) as client:
        old = client.enqueue(HOLD, str(gate))
        worker = worker_at(gate)
        project.change("two")
        reload(client)
        ids = [client.enqueue(HOLD, str(other)) for _ in range(3)]
        newer = worker_at(other)
        wait_for(lambda: sorted(client.workers()) == sorted([worker, newer]))
        stays(lambda: len(client.workers()) <= 2, 1)
        gate.touch()
        assert client.value(old) == "one"
        other.touch()
        assert [client.value(each) for each in ids] == ["two"] * 3


def test_a_chain_of_deploys(tmp_path: Path) -> None:
    """Reloads with tasks on their way: each runs once, on code no older than its site's."""
    project = Project(tmp_path / "shop", "0")
    with serving(workers=2, env=project.env) as client:
        for number in range(1, 3):
            project.change(str(number))
            reload(client)
            ids = client.enqueue_many(10, VERSION)
            assert {client.value(each) for each in ids} == {str(number)}
        wait_for(lambda: len(client.supervisors()) == 1)


def test_a_pool_that_is_told_to_stop_hands_over(tmp_path: Path) -> None:
    """SIGTERM to the pool while the site lives: a successor serves, the running task ends."""
    gate = tmp_path / "gate"
    with serving(workers=2) as client:
        running, worker = client.hold(gate)
        (old,) = client.supervisors()
        kill(old, signal.SIGTERM)
        wait_for(lambda: set(client.supervisors()) - {old}, LONG_TIMEOUT)
        assert client.run("add", 1, 2) == 3
        assert alive(worker)
        gate.touch()
        assert client.value(running) == worker
        wait_for(lambda: gone(old))
