"""The same site under other servers: threads, greenlets, event loops, a preloaded application."""

import signal
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from tests.process.client import Client, gone, serving
from tests.support import LONG_TIMEOUT, kill, wait_for

SERVERS: dict[str, dict[str, Any]] = {
    "gthread": {"threads": 4},
    "gevent": {"server": "gevent"},
    "uvicorn": {"server": "uvicorn", "app": "tests.site.asgi:application"},
    "preload": {"args": ["--preload"]},
}


@pytest.mark.parametrize("server", SERVERS)
def test_a_site_under(server: str, tmp_path: Path) -> None:
    """Every web worker knows every id; a killed worker of either kind costs nothing."""
    gate = tmp_path / "gate"
    with serving(workers=2, **SERVERS[server]) as client:
        running, worker = client.hold(gate)
        assert client.run("add", 1, 2) == 3
        assert {a["status"] for a in client.every_answer(running).values()} == {"RUNNING"}
        many = client.enqueue_many(50, "add", 1, 1)
        assert {client.value(each) for each in many} == {2}
        assert len(client.supervisors()) == 1
        kill_one_of_each(client, worker)
        _, text = client.error(running)
        assert "killed by SIGKILL" in text
        assert client.run("add", 3, 4) == 7
        client.every_answer(running)  # the new one has booted: before, gunicorn loses its SIGTERM


def kill_one_of_each(client: Client, worker: int) -> None:
    """A pool worker with a task, and a web worker; returns when the latter is replaced."""
    web = client.site.worker_pids()
    kill(worker)
    kill(web[0])
    wait_for(lambda: len(set(client.site.worker_pids()) - {web[0]}) == len(web), LONG_TIMEOUT)


def _succeeded(client: Client, path: str) -> bool:
    return bool(client.site.get(path)[1]["status"] == "SUCCESSFUL")


def test_event_loops_enqueue_and_read() -> None:
    """aenqueue and aget_result, in an ASGI process."""
    with serving(server="uvicorn", app="tests.site.asgi:application", workers=1) as client:
        for number in range(5):
            status, body = client.site.post("/aenqueue", {"task": "add", "args": [number, 1]})
            assert status == 200
            path = f"/aresult/{body['ids'][0]}"
            wait_for(partial(_succeeded, client, path))
            assert client.site.get(path)[1]["value"] == number + 1
        assert client.site.get("/aresult/nonsense")[0] == 404


def test_threads_share_one_attachment() -> None:
    """Django makes a backend object per thread; a process has one attachment, one watcher."""
    with serving(workers=1, threads=4) as client:
        client.run("add", 1)
        with ThreadPoolExecutor(3) as clients:
            seen = [each[1] for each in clients.map(client.site.get, ["/handles"] * 3)]
        assert len({each["thread"] for each in seen}) == 3
        assert len({each["backend"] for each in seen}) == 3
        assert len({each["attachment"] for each in seen}) == 1
        assert len({each["entry"] for each in seen}) == 1
        assert {each["watchers"] for each in seen} == {2}  # one per alias


def test_a_backend_that_was_used_before_the_fork(tmp_path: Path) -> None:
    """--preload with an application that enqueues when it is imported: the workers attach anew."""
    log = tmp_path / "log"
    env = {"DTL_LOG": str(log)}
    with serving(
        app="tests.site.preloaded:application", args=["--preload"], workers=2, env=env
    ) as client:
        wait_for(log.exists, LONG_TIMEOUT)
        assert log.read_text() == "from the master\n"
        result_id = client.enqueue("add", 1, 2)
        assert client.value(result_id) == 3
        assert len(client.every_answer(result_id)) == 2
        assert len(client.supervisors()) == 1
        before = client.site.worker_pids()
        kill(client.site.pid, signal.SIGHUP)
        wait_for(lambda: gone(*before) and len(client.site.worker_pids()) == 2, LONG_TIMEOUT)
        assert client.run("add", 1, 2) == 3


def test_runserver_without_autoreload(tmp_path: Path) -> None:
    """One process with threads; Ctrl-C ends it at once, its task after DRAIN_TIMEOUT."""
    gate = tmp_path / "gate"
    options = {"DRAIN_TIMEOUT": 1}
    with serving(server="runserver", args=["--noreload"], options=options) as client:
        assert client.run("add", 1, 2) == 3
        _, worker = client.hold(gate)
        kill(client.site.pid, signal.SIGINT)
        wait_for(lambda: gone(client.site.pid), 5)
        wait_for(lambda: gone(worker))
        assert "waiting for" not in client.site.log()


def test_set_up_that_leaves_a_thread_running(tmp_path: Path) -> None:
    """No fork beside a thread of unknown locks: such a project's workers are started fresh."""
    gate = tmp_path / "gate"
    with serving(workers=1, options={"MAX_WORKERS": 2}, env={"DTL_THREAD": "1"}) as client:
        assert client.run("add", 1, 2) == 3
        result_id, worker = client.hold(gate)
        assert b"--worker-of" in Path(f"/proc/{worker}/cmdline").read_bytes()
        kill(worker, signal.SIGTERM)
        kill(client.supervisors()[0])
        assert "together with its pool" in client.error(result_id)[1]
        wait_for(lambda: gone(worker))
        assert client.run("add", 1, 2) == 3
        result_id, worker = client.hold(tmp_path / "other")
        kill(worker)
        assert "killed by SIGKILL" in client.error(result_id)[1]
