"""Who ends when: idle and busy pools, DRAIN_TIMEOUT, and SIGKILL of everything at once."""

import signal
from pathlib import Path
from time import monotonic
from typing import Any

import pytest

from tests.process.client import Client, gone, reading, serving, worker_at, workers_at
from tests.support import LONG_TIMEOUT, alive, kill, stays, wait_for

LOST = "django_tasks_local.exceptions.WorkerLost"


def stop(client: Client, how: str) -> None:
    """Ends the web server, or all of the site's processes but the pool, or really all."""
    site = client.site
    if how == "SIGTERM":
        kill(site.pid, signal.SIGTERM)
    elif how == "SIGTERM to all":
        for pid in site.pids():
            kill(pid, signal.SIGTERM)
    else:
        for pid in [site.pid, *site.worker_pids()]:
            kill(pid)


@pytest.mark.parametrize("how", ["SIGTERM", "SIGTERM to all", "SIGKILL"])
def test_an_idle_pool_goes_with_its_site(how: str) -> None:
    """Two to three seconds after the web server there is no process left, however it ended."""
    with serving(workers=2) as client:
        client.run("add", 1)
        assert 1 <= len(client.workers()) <= 2  # of four: one that worked, one to spare
        stop(client, how)
        wait_for(lambda: not set(client.site.pids()) - set(client.site.pool_pids()))
        ended = monotonic()
        wait_for(lambda: not client.site.pids())
        assert monotonic() - ended < 6


@pytest.mark.parametrize(
    ("drain_s", "how"), [(0, "SIGKILL"), (2, "SIGTERM"), (2, "SIGTERM to all")]
)
def test_a_busy_pool_goes_after_drain_timeout(tmp_path: Path, drain_s: int, how: str) -> None:
    """What runs is then FAILED and says so; what waits stays READY and runs at the next start."""
    gate, log = tmp_path / "gate", tmp_path / "log"
    options = {"DRAIN_TIMEOUT": drain_s, "MAX_WORKERS": 1}
    with serving(workers=2, options=options) as client:
        running, worker = client.hold(gate)
        waiting = client.enqueue("note", str(log))
        stopped = monotonic()
        stop(client, how)
        wait_for(lambda: gone(client.site.pid), 10)  # no web process waits for a task
        # The pool's clock started after ours, but maybe before the web server was gone.
        stays(lambda: alive(worker), stopped + drain_s * 0.75 - monotonic())
        wait_for(lambda: gone(worker), LONG_TIMEOUT)
        assert monotonic() - stopped >= drain_s
        wait_for(lambda: not client.site.pids())
        with reading(client.namespace, **options) as ring:
            lost = ring.get_result(running)
            assert lost.status == "FAILED"
            assert lost.errors[0].exception_class_path == LOST
            assert "DRAIN_TIMEOUT" in lost.errors[0].traceback
            assert ring.get_result(waiting).status == "READY"
        assert not log.exists()
        run_again(client.namespace, options, log, waiting)


def run_again(namespace: str, options: dict[str, Any], log: Path, waiting: str) -> None:
    """A new start of the site is enough for what waited: no request comes."""
    env = {"DTL_NAMESPACE": namespace}
    with serving(workers=1, options=options, env=env, ready_path=None) as again:
        wait_for(lambda: log.exists() and log.read_text() == f"{waiting}\n", LONG_TIMEOUT)
        again.value(waiting)


def test_without_drain_timeout_all_is_done(tmp_path: Path) -> None:
    """DRAIN_TIMEOUT None: the pool goes on alone until nothing waits or runs, then goes."""
    gate, log = tmp_path / "gate", tmp_path / "log"
    options = {"DRAIN_TIMEOUT": None, "MAX_WORKERS": 1}
    with serving(workers=1, options=options) as client:
        running, worker = client.hold(gate)
        waiting = client.enqueue_many(3, "note", str(log))
        stop(client, "SIGKILL")
        stays(lambda: alive(worker), 2.5)
        gate.touch()
        wait_for(lambda: not client.site.pids(), LONG_TIMEOUT)
        with reading(client.namespace, **options) as ring:
            statuses = [ring.get_result(each).status for each in (running, *waiting)]
            assert statuses == ["SUCCESSFUL"] * 4
        assert log.read_text().split() == waiting


def test_everything_is_killed_at_once(tmp_path: Path) -> None:
    """The web server, the pool and its workers: no process stays, and no waiting task is lost."""
    gate, log = tmp_path / "gate", tmp_path / "log"
    options = {"MAX_WORKERS": 2}
    with serving(workers=2, options=options) as client:
        running = [client.enqueue("hold", str(gate)) for _ in range(2)]
        wait_for(lambda: len(workers_at(gate)) == 2, LONG_TIMEOUT)
        waiting = client.enqueue("note", str(log))
        client.site.kill_all()
        with reading(client.namespace, **options) as ring:
            for result_id in running:
                assert ring.get_result(result_id).errors[0].exception_class_path == LOST
            assert ring.get_result(waiting).status == "READY"
        run_again(client.namespace, options, log, waiting)


def test_the_supervisor_is_killed_while_nobody_looks(tmp_path: Path) -> None:
    """Pool and web server die together: the workers go too, in the middle of their tasks."""
    gate = tmp_path / "gate"
    with serving(workers=1) as client:
        _, worker = client.hold(gate)
        for pid in [client.site.pid, *client.site.worker_pids(), *client.supervisors()]:
            kill(pid)
        wait_for(lambda: gone(worker), 5)
        wait_for(lambda: not client.site.pids(), 5)


def test_the_master_is_killed(tmp_path: Path) -> None:
    """Web workers without a master go on serving, and so does the pool."""
    gate = tmp_path / "gate"
    with serving(workers=2, args=["--timeout", "60"]) as client:
        result_id, worker = client.hold(gate)
        web = client.site.worker_pids()
        kill(client.site.pid)
        wait_for(lambda: gone(client.site.pid))
        stays(lambda: alive(worker), 1.5)
        gate.touch()
        with reading(client.namespace) as ring:
            wait_for(lambda: ring.get_result(result_id).status == "SUCCESSFUL")
        for pid in web:
            kill(pid, signal.SIGTERM)
        wait_for(lambda: not client.site.pids())


def test_a_recycled_web_worker_changes_nothing(tmp_path: Path) -> None:
    """--max-requests 25: 300 enqueues lose nothing, and a task outlives the web worker it is of."""
    gate, log = tmp_path / "gate", tmp_path / "log"
    with serving(workers=4, args=["--max-requests", "25"]) as client:
        status, body = client.site.post("/enqueue", {"task": "hold", "args": [str(gate)]})
        assert status == 200
        worker_at(gate)
        pools = client.supervisors()
        ids = [client.enqueue("note", str(log)) for _ in range(300)]
        wait_for(lambda: log.exists() and len(log.read_text().split()) >= 300, LONG_TIMEOUT)
        assert sorted(log.read_text().split()) == sorted(ids)
        wait_for(lambda: gone(body["pid"]))
        assert client.status(body["ids"][0]) == "RUNNING"
        assert client.supervisors() == pools
        gate.touch()
        client.value(body["ids"][0])


def test_hangup_changes_nothing(tmp_path: Path) -> None:
    """SIGHUP renews every web worker; with the same code on the disk the pool stays."""
    gate = tmp_path / "gate"
    with serving(workers=2) as client:
        result_id, _ = client.hold(gate)
        before, pools = client.site.worker_pids(), client.supervisors()
        kill(client.site.pid, signal.SIGHUP)
        wait_for(lambda: gone(*before) and len(client.site.worker_pids()) == 2, LONG_TIMEOUT)
        assert {a["status"] for a in client.every_answer(result_id).values()} == {"RUNNING"}
        assert client.run("add", 1, 2) == 3
        assert client.supervisors() == pools
        gate.touch()
        client.value(result_id)
