"""Pools that cannot start, modules that do not import, rings that go away, queues that are full."""

import os
import signal
import subprocess
import sys
from pathlib import Path

from django_tasks_local.ring import Role
from django_tasks_local.ring.format import layout as at
from django_tasks_local.ring.shm.objects import SEMAPHORES
from tests.process.client import Client, environment, gone, reading, serving, unlink_rings
from tests.support import LONG_TIMEOUT, ROOT, kill, unlink_shm, wait_for


def test_a_pool_that_cannot_start(tmp_path: Path) -> None:
    """Its traceback is in the site's log, tasks stay READY, and the site tries again later."""
    broken = tmp_path / "broken"
    broken.touch()
    with serving(workers=1, env={"DTL_BROKEN_IF": str(broken)}) as client:
        result_id = client.enqueue("add", 1, 2)
        text = "RuntimeError: these settings are broken in the pool"
        wait_for(lambda: client.site.log().count(text) >= 3, LONG_TIMEOUT)
        assert "Traceback" in client.site.log()
        assert "ended with status 1" in client.site.log()
        assert client.status(result_id) == "READY"
        broken.unlink()
        assert client.value(result_id) == 3
        # Three failures are some seconds: 0.5, 1, 2 and so on between them, not a storm.
        assert client.site.log().count(text) <= 6


def test_a_pool_that_hangs_while_it_imports(tmp_path: Path) -> None:
    """It is in `local_tasks status` with its pid, from its start on; killed, it is replaced."""
    hang = tmp_path / "hang"
    hang.touch()
    with serving(workers=1, env={"DTL_HANG_IF": str(hang)}) as client:
        result_id = client.enqueue("add", 1, 2)
        wait_for(client.supervisors, LONG_TIMEOUT)
        line = f"attached pool {client.supervisors()[0]}, importing since "
        wait_for(lambda: line in status_of(client), LONG_TIMEOUT)
        assert client.status(result_id) == "READY"
        hang.unlink()
        kill(client.supervisors()[0])
        assert client.value(result_id) == 3


def status_of(client: Client) -> str:
    """What the command says."""
    command = [sys.executable, "-m", "django", "local_tasks", "status"]
    env = os.environ | environment(client.namespace)
    return subprocess.run(command, env=env, cwd=ROOT, capture_output=True, text=True).stdout


def test_a_module_that_does_not_import_in_the_pool() -> None:
    """That task is FAILED with the import's own traceback, and the pool goes on."""
    with serving(workers=1) as client:
        path, text = client.error(client.enqueue("tests.site.fragile.never_runs"))
        assert path == "builtins.ImportError"
        assert "this module does not import in a pool" in text
        assert client.run("add", 1, 2) == 3
        assert client.site.log().count("cannot be imported") == 1


def test_a_ring_that_is_removed_while_in_use(tmp_path: Path) -> None:
    """systemd's RemoveIPC, or rm: a critical line in the log, then service with a new ring."""
    gate = tmp_path / "gate"
    with serving(workers=2, options={"MAX_WORKERS": 1}) as client:
        running, worker = client.hold(gate)
        client.every_answer(running)
        (old,) = client.supervisors()
        unlink_rings(client.site.objects())
        text = "was removed while in use"  # two web workers, two aliases
        wait_for(lambda: client.site.log().count(text) == 4, LONG_TIMEOUT)
        assert "CRITICAL" in client.site.log()
        assert "RemoveIPC=no" in client.site.log()
        result_id = client.enqueue("add", 1, 2)
        assert client.value(result_id) == 3
        assert len(client.every_answer(result_id)) == 2
        gate.touch()
        wait_for(lambda: gone(old, worker), LONG_TIMEOUT)


def test_what_is_in_a_removed_ring_runs_to_its_end(tmp_path: Path) -> None:
    """Running, waiting and deferred tasks, though no process of the site has that ring any more."""
    gate, log = tmp_path / "gate", tmp_path / "log"
    # No time to drain: they run because the old pool knows that the site lives.
    with serving(workers=2, options={"MAX_WORKERS": 1, "DRAIN_TIMEOUT": 0}) as client:
        client.hold(gate)
        waiting = client.enqueue("note", str(log))
        deferred = client.enqueue("note", str(log), using={"run_after_s": 5})
        client.every_answer(waiting)  # so that both web workers are attached
        (old,) = client.supervisors()
        unlink_rings(client.site.objects())
        text = "was removed while in use"
        wait_for(lambda: client.site.log().count(text) == 4, LONG_TIMEOUT)
        assert client.run("add", 1, 2) == 3
        gate.touch()
        wait_for(lambda: gone(old), LONG_TIMEOUT)
        assert log.read_text().split() == [waiting, deferred]


def test_semaphores_that_are_removed() -> None:
    """They hold no facts: they are made again, and nobody notices."""
    with serving(workers=2) as client:
        assert client.run("add", 1) == 1
        rings = {name[:-1] for name in client.site.objects() if name.startswith("dtl-")}
        unlink_shm({f"sem.{ring}{letters}" for ring in rings for letters in SEMAPHORES})
        for number in range(5):
            assert client.run("add", number) == number


def test_a_full_queue(tmp_path: Path) -> None:
    """QueueFull names MAX_PENDING; when tasks have run there is room again, and none is lost."""
    gate, log = tmp_path / "gate", tmp_path / "log"
    options = {"MAX_WORKERS": 1, "MAX_PENDING": 5}
    with serving(workers=2, options=options) as client:
        client.hold(gate)
        ids = [client.enqueue("note", str(log)) for _ in range(5)]
        refused = client.refused("note", str(log))
        assert refused["error"] == "QueueFull"
        assert "MAX_PENDING" in refused["text"]
        gate.touch()
        for result_id in ids:
            client.value(result_id)
        client.run("add", 1)
        # Two web processes: what the newer one enqueued first may have waited for the pool to
        # compare its files.
        assert sorted(log.read_text().split()) == sorted(ids)


def test_payloads_over_the_limit() -> None:
    """In either direction: PayloadTooLarge, and the ring goes on."""
    options = {"MAX_WORKERS": 1, "SHM_SIZE": 2 * 2**20, "MAX_PENDING": 10, "MAX_RESULTS": 10}
    with serving(workers=1, options=options) as client:
        refused = client.refused("take_anything", "x" * 3 * 2**20)
        assert refused["error"] == "PayloadTooLarge"
        assert "SHM_SIZE" in refused["text"]
        path, text = client.fails("large", 3 * 2**20)
        assert path == "django_tasks_local.exceptions.PayloadTooLarge"
        assert "SHM_SIZE" in text
        assert client.run("add", 1, 2) == 3


def test_results_beyond_the_limit_are_evicted() -> None:
    """MAX_RESULTS finished results are kept; an older id is unknown to every web worker."""
    with serving(workers=2, options={"MAX_RESULTS": 3, "MAX_WORKERS": 1}) as client:
        ids = []
        for number in range(5):
            ids.append(client.enqueue("add", number))
            client.value(ids[-1])
        assert [client.site.get(f"/result/{each}")[0] for each in ids] == [404, 404, 200, 200, 200]


def test_a_worker_that_dies_before_it_works(tmp_path: Path) -> None:
    """A worker killed while idle is replaced, and a task meanwhile is not lost."""
    with serving(workers=1, options={"MAX_WORKERS": 2}) as client:
        for _ in range(3):
            assert client.run("add", 1) == 1
            kill(client.workers()[0])
        log = tmp_path / "log"
        result_id = client.enqueue("note", str(log))
        client.value(result_id)
        assert log.read_text().split() == [result_id]


def test_a_stopped_worker_is_killed_with_its_pool(tmp_path: Path) -> None:
    """SIGSTOP does not keep a worker alive when its pool dies."""
    gate = tmp_path / "gate"
    with serving(workers=1) as client:
        result_id, worker = client.hold(gate)
        kill(worker, signal.SIGSTOP)
        with reading(client.namespace) as ring:
            assert ring.get_result(result_id).status == "RUNNING"
        kill(client.supervisors()[0])
        wait_for(lambda: gone(worker))
        assert "together with its pool" in client.error(result_id)[1]


def test_a_claim_ends_the_pauses() -> None:
    """A pool whose worker has claimed a task has come up well: the next one starts at once."""
    with serving(workers=1) as client:
        assert client.run("add", 1) is not None
        with reading(client.namespace) as backend:
            ring = backend.site().ring
            code = next(e.code for e in ring.registry.attachments() if e.role is Role.POOL)
            assert ring.codes.field(code, at.C_START_FAILURES) == 0
            assert ring.codes.field(code, at.C_START_AFTER) == 0
