"""Two releases of one site share a ring: each task runs on the code that enqueued it."""

import os
import signal
import subprocess
import sysconfig
import venv
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from tests.process.client import (
    Client,
    environment,
    gone,
    is_supervisor,
    serving,
    worker_at,
    workers_at,
)
from tests.process.project import Project
from tests.support import LONG_TIMEOUT, kill, stays, wait_for

VERSION, HOLD = "shop.tasks.version", "shop.tasks.hold"


@contextmanager
def blue_and_green(
    folder: Path, *, files: dict[str, str] | None = None, **options: Any
) -> Iterator[tuple[Client, Client]]:
    """Two directories, two servers, one ring; `files` are written into both."""
    blue, green = (Project(folder / name, name) for name in ("blue", "green"))
    for name, text in (files or {}).items():
        blue.write(name, text)
        green.write(name, text)
    with (
        serving(workers=1, env=blue.env, options=options) as first,
        serving(
            workers=1, options=options, env=green.env | {"DTL_NAMESPACE": first.namespace}
        ) as second,
    ):
        yield first, second


def recycle(client: Client) -> None:
    """Kills the web workers; the server starts others in their places."""
    before = client.site.worker_pids()
    for pid in before:
        kill(pid, signal.SIGKILL)
    wait_for(lambda: gone(*before) and client.site.worker_pids(), LONG_TIMEOUT)
    client.site.get("/")


def workers_at_once(blue: Client, green: Client) -> int:
    """How many there were at one moment: one of blue's may end while green's are looked for."""
    before, others = blue.workers(), green.workers()
    return len(others) + len({*before} & {*blue.workers()})


def stop_site(client: Client) -> None:
    """Ends the server and its web workers, not the pool."""
    pids = [client.site.pid, *client.site.worker_pids()]
    for pid in pids:
        kill(pid)
    wait_for(lambda: gone(*pids), LONG_TIMEOUT)


def test_each_runs_its_own(tmp_path: Path) -> None:
    """Whichever came last: a recycled web worker of the old release brings no new code."""
    with blue_and_green(tmp_path) as (blue, green):
        assert (blue.run(VERSION), green.run(VERSION)) == ("blue", "green")
        recycle(blue)
        for _ in range(3):
            assert (blue.run(VERSION), green.run(VERSION)) == ("blue", "green")
        assert len(blue.supervisors()) == len(green.supervisors()) == 1


def test_one_waits_for_nobody(tmp_path: Path) -> None:
    """Tasks whose code cannot start hold back nothing of the other release."""
    with blue_and_green(tmp_path) as (blue, green):
        assert blue.run(VERSION) == "blue"
        settings = tmp_path / "green" / "shop_settings.py"
        settings.write_text("raise RuntimeError\n")
        ids = [green.enqueue(VERSION) for _ in range(3)]
        assert blue.run(VERSION) == "blue"
        assert [green.status(each) for each in ids] == ["READY"] * 3
        Project(tmp_path / "green", "green")
        assert [green.value(each) for each in ids] == ["green"] * 3


def test_the_one_that_is_left_adopts(tmp_path: Path) -> None:
    """A release that has gone leaves its waiting tasks to the other; what ran, ends on its code."""
    gate = tmp_path / "gate"
    with blue_and_green(tmp_path, MAX_WORKERS=1) as (blue, green):
        running = blue.enqueue(HOLD, str(gate))
        worker_at(gate)
        waiting = blue.enqueue(VERSION)
        stop_site(blue)
        # The pool goes on with what its own release enqueued, however long that takes.
        stays(lambda: green.status(running) == "RUNNING", 2.5)
        gate.touch()
        assert (green.value(running), green.value(waiting)) == ("blue", "blue")
        wait_for(lambda: not blue.supervisors(), LONG_TIMEOUT)


def test_orphans_are_adopted(tmp_path: Path) -> None:
    """Site and pool of the old release are killed: its tasks run on the new one, with a word."""
    gate = tmp_path / "gate"
    with blue_and_green(tmp_path, MAX_WORKERS=1) as (blue, green):
        lost = blue.enqueue(HOLD, str(gate))
        worker_at(gate)
        waiting = [blue.enqueue(VERSION) for _ in range(2)]
        stop_site(blue)
        # The last one first: it may be a second one, which waits for the place of the first.
        for pid in sorted(filter(is_supervisor, blue.site.pool_pids()), reverse=True):
            kill(pid, signal.SIGKILL)
        assert [green.value(each) for each in waiting] == ["green"] * 2
        assert green.status(lost) == "FAILED"
        assert "are left, but no process of it" in green.site.log()


def test_together_they_have_max_workers(tmp_path: Path) -> None:
    """One release has all workers: they give way between two tasks, until each has its share."""
    first, second = tmp_path / "first", tmp_path / "second"
    with blue_and_green(tmp_path, MAX_WORKERS=4) as (blue, green):
        ids = [blue.enqueue(HOLD, str(first)) for _ in range(8)]
        wait_for(lambda: len(workers_at(first)) == 4, LONG_TIMEOUT)
        ids += [green.enqueue(HOLD, str(second)) for _ in range(4)]
        stays(lambda: not workers_at(second), 1)
        first.touch()
        wait_for(lambda: len(workers_at(second)) >= 2, LONG_TIMEOUT)
        assert workers_at_once(blue, green) <= 4
        second.touch()
        for result_id in ids:
            green.value(result_id)


def test_with_one_worker_they_take_turns(tmp_path: Path) -> None:
    """Neither starves, and there are never two."""
    gate = tmp_path / "gate"
    with blue_and_green(tmp_path, MAX_WORKERS=1) as (blue, green):
        held = blue.enqueue(HOLD, str(gate))
        wait_for(lambda: workers_at(gate), LONG_TIMEOUT)
        ids = [client.enqueue(VERSION) for _ in range(5) for client in (blue, green)]
        most = workers_at_once(blue, green)
        assert most == 1
        gate.touch()

        def all_done() -> bool:
            nonlocal most
            most = max(most, workers_at_once(blue, green))
            return all(green.status(each) == "SUCCESSFUL" for each in ids)

        wait_for(all_done, LONG_TIMEOUT)
        assert most == 1
        green.value(held)
        assert {green.value(each) for each in ids[::2]} == {"blue"}
        assert {green.value(each) for each in ids[1::2]} == {"green"}


def test_a_new_worker_claims_before_it_gives_way(tmp_path: Path) -> None:
    """The other pool is short of workers before a new one has claimed anything."""
    app = """
        from django.apps import AppConfig
        from django.tasks import default_task_backend
        from django_tasks_local.signals import worker_started
        from django_tasks_local.ring.format import layout
        from tests.support import wait_for

        def await_the_other(**kwargs):
            ring = default_task_backend.site().ring
            ours = ring.registry.code
            others = [code for code in range(layout.CODES) if code != ours]
            wait_for(lambda: (
                ring.words[layout.H_WANTED] & ~(1 << ours)
                or not any(map(ring.codes.has_tasks, others))
            ))

        class Shop(AppConfig):
            name = "shop"

            def ready(self):
                worker_started.connect(await_the_other)
    """
    with blue_and_green(tmp_path, MAX_WORKERS=1, files={"shop/apps.py": app}) as (blue, green):
        ids = [client.enqueue(VERSION) for _ in range(3) for client in (blue, green)]
        assert [green.value(each) for each in ids] == ["blue", "green"] * 3


def test_an_idle_worker_gives_way(tmp_path: Path) -> None:
    """The other release has nothing to do, and its only worker sleeps."""
    with blue_and_green(tmp_path, MAX_WORKERS=1) as (blue, green):
        assert blue.run(VERSION) == "blue"
        assert green.run(VERSION) == "green"
        assert blue.run(VERSION) == "blue"


def test_another_environment_is_other_code(tmp_path: Path) -> None:
    """The same settings under another virtualenv: its packages may be others."""
    project = Project(tmp_path / "shop")
    project.write(
        "shop/where.py",
        """
        import sys
        from django.tasks import task

        @task
        def prefix():
            return sys.prefix
        """,
    )
    other = tmp_path / "venv"
    venv.create(other, symlinks=True)
    paths = os.pathsep.join([project.env["PYTHONPATH"], sysconfig.get_paths()["purelib"]])
    program = (
        "import django\n"
        "django.setup()\n"
        "from shop.where import prefix\n"
        "from tests.site.waiting import finished\n"
        "print(finished(prefix.enqueue()))\n"
    )
    with serving(workers=1, env=project.env) as client:
        ours = client.run("shop.where.prefix")
        env = environment(client.namespace) | project.env | {"PYTHONPATH": paths}
        out = subprocess.run(
            [other / "bin" / "python", "-c", program],
            env=os.environ | env, capture_output=True, text=True, timeout=LONG_TIMEOUT, check=True,
        ).stdout.strip()  # fmt: skip
        assert out == str(other)
        assert client.run("shop.where.prefix") == ours != out
