"""`manage.py local_worker`: the pool in the foreground, beside a site and without one."""

import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from time import monotonic

from tests.process.client import (
    environment,
    fresh_namespace,
    gone,
    reading,
    serving,
)
from tests.process.project import Project
from tests.support import LONG_TIMEOUT, ROOT, alive, children_of, kill, stays, wait_for


@contextmanager
def local_worker(
    namespace: str, *, env: dict[str, str] | None = None, **options: object
) -> Iterator[subprocess.Popen[str]]:
    """The command, as systemd starts it."""
    env = env or os.environ | environment(namespace, **options) | {"PYTHONPATH": str(ROOT)}
    command = [sys.executable, "-m", "django", "local_worker", "--alias", "default"]
    with subprocess.Popen(
        command, env=env, text=True, stdout=subprocess.PIPE, stderr=subprocess.STDOUT
    ) as process:
        try:
            assert process.stdout is not None
            assert "Serving 'default' with up to" in process.stdout.readline()
            yield process
        finally:
            process.kill()


def serves(process: subprocess.Popen[str]) -> bool:
    """Whether it has workers, which it starts when it has the pool's place."""
    return bool(children_of(process.pid))


def test_it_takes_over_and_hands_over(tmp_path: Path) -> None:
    """From a pool that a web process started, and back to one at SIGTERM; no task is disturbed."""
    first, second, third = tmp_path / "1", tmp_path / "2", tmp_path / "3"
    with serving(workers=2) as client:
        one, in_old_pool = client.hold(first)
        (old,) = client.supervisors()
        with local_worker(client.namespace) as process:
            wait_for(lambda: serves(process), LONG_TIMEOUT)
            two, in_command = client.hold(second)
            assert os.getpgid(in_command) == in_command
            assert in_command in children_of(process.pid)
            assert alive(in_old_pool)
            first.touch()
            assert client.value(one) == in_old_pool
            wait_for(lambda: gone(old))
            stays(lambda: not client.supervisors(), 1)  # web processes start none
            process.send_signal(signal.SIGTERM)
            wait_for(client.workers, LONG_TIMEOUT)
            three, in_new_pool = client.hold(third)
            assert in_new_pool in client.workers()
            assert alive(in_command)
            second.touch()
            assert client.value(two) == in_command
            assert process.wait(LONG_TIMEOUT) == 0
            third.touch()
            assert client.value(three) == in_new_pool


def test_a_killed_one_is_replaced(tmp_path: Path) -> None:
    """Web processes start a pool again when local_worker has died."""
    gate, options = tmp_path / "gate", {"MAX_WORKERS": 1}
    with (
        serving(workers=1, options=options) as client,
        local_worker(client.namespace, MAX_WORKERS=1) as process,
    ):
        wait_for(lambda: serves(process), LONG_TIMEOUT)
        result_id, worker = client.hold(gate)
        assert worker in children_of(process.pid)
        waiting = client.enqueue_many(5, "add", 1)
        process.kill()
        assert "together with its pool" in client.error(result_id)[1]
        assert [client.value(each) for each in waiting] == [1] * 5
        assert client.supervisors()


def test_alone_it_stays_and_runs_what_waits(tmp_path: Path) -> None:
    """It needs no site; SIGTERM ends it when nothing runs."""
    with fresh_namespace() as namespace, local_worker(namespace) as process:
        wait_for(lambda: serves(process), LONG_TIMEOUT)
        stays(lambda: process.poll() is None, 1.5)
        process.send_signal(signal.SIGTERM)
        assert process.wait(LONG_TIMEOUT) == 0


def test_drain_timeout_and_a_second_sigterm(tmp_path: Path) -> None:
    """Without a site a running task has DRAIN_TIMEOUT; a second SIGTERM ends it at once."""
    gate = tmp_path / "gate"
    options = {"DRAIN_TIMEOUT": 60}
    with fresh_namespace() as namespace, local_worker(namespace, DRAIN_TIMEOUT=60) as process:
        wait_for(lambda: serves(process), LONG_TIMEOUT)
        with serving(workers=1, options=options, env={"DTL_NAMESPACE": namespace}) as client:
            result_id, worker = client.hold(gate)
        process.send_signal(signal.SIGTERM)
        stays(lambda: alive(worker), 2)
        asked = monotonic()
        process.send_signal(signal.SIGTERM)
        assert process.wait(LONG_TIMEOUT) == 0
        assert gone(worker)
        assert monotonic() - asked < 10
        with reading(namespace, **options) as ring:
            assert ring.get_result(result_id).status == "FAILED"


def test_ctrl_c_in_a_terminal(tmp_path: Path) -> None:
    """The terminal signals the whole group: idle, the command ends without a traceback."""
    with fresh_namespace() as namespace, local_worker(namespace) as process:
        wait_for(lambda: serves(process), LONG_TIMEOUT)
        for pid in [process.pid, *children_of(process.pid)]:
            kill(pid, signal.SIGINT)
        assert process.wait(LONG_TIMEOUT) == 0
        assert process.stdout is not None
        assert "Traceback" not in process.stdout.read()


def test_a_second_one_waits_for_the_first() -> None:
    """One pool per ring: the second takes over, and the first ends."""
    with fresh_namespace() as namespace, local_worker(namespace) as first:
        wait_for(lambda: serves(first), LONG_TIMEOUT)
        with local_worker(namespace) as second:
            wait_for(lambda: serves(second), LONG_TIMEOUT)
            assert first.wait(LONG_TIMEOUT) == 0
            second.send_signal(signal.SIGTERM)
            assert second.wait(LONG_TIMEOUT) == 0


def test_new_code_ends_it(tmp_path: Path) -> None:
    """It does not reload: it leaves to a pool with the new code, and who supervises restarts it."""
    project = Project(tmp_path / "shop")
    with serving(workers=1, env=project.env) as client:
        env = {**os.environ, **environment(client.namespace), **project.env}
        with local_worker(client.namespace, env=env) as process:
            wait_for(lambda: serves(process), LONG_TIMEOUT)
            assert client.run("shop.tasks.version") == "one"
            project.change("two")
            (web,) = client.site.worker_pids()
            kill(client.site.pid, signal.SIGHUP)
            wait_for(lambda: gone(web) and client.site.worker_pids(), LONG_TIMEOUT)
            assert client.run("shop.tasks.version") == "two"
            assert process.wait(LONG_TIMEOUT) == 0
            assert process.stdout is not None
            assert "asks for a successor" in process.stdout.read()
