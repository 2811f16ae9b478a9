"""A process of the site is stopped inside the lock, while the site goes on serving."""

import os
import signal
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from tests.process.client import reading, serving
from tests.support import LONG_TIMEOUT, wait_for


@contextmanager
def stopped_inside(namespace: str) -> Iterator[int]:
    """A process that is attached to the site's ring, and stopped while it has the lock."""
    pid = os.fork()
    if not pid:
        with reading(namespace) as backend:
            backend.site().ring._mutex.run(lambda: os.kill(os.getpid(), signal.SIGSTOP))
            os._exit(0)
    try:
        os.waitpid(pid, os.WUNTRACED)
        yield pid
    finally:
        os.kill(pid, signal.SIGCONT)
        os.waitpid(pid, 0)


def test_only_what_needs_the_lock_waits(tmp_path: Path) -> None:
    """Polls are answered, and so are pages of new web workers; a result is kept till later.

    Whoever waited for the stopped process would wait for 30 s, longer than a request here may take.
    """
    gate, other = tmp_path / "gate", tmp_path / "other"
    with serving(workers=2, options={"MAX_WORKERS": 2}) as client:
        old, new = client.enqueue("add", 1), client.enqueue("add", 2)
        assert (client.value(old), client.value(new)) == (1, 2)
        ends, _ = client.hold(gate)
        runs_on, _ = client.hold(other)
        pool, workers = client.supervisors(), client.workers()
        with stopped_inside(client.namespace):
            for _ in range(10):
                for result_id, value in ((old, 1), (new, 2)):
                    assert client.result(result_id)["value"] == value
                assert client.status(runs_on) == "RUNNING"
            before = client.site.worker_pids()
            for pid in before:
                client.site.kill(pid)
            wait_for(
                lambda: not set(before) & set(pids := client.site.worker_pids()) and len(pids) == 2,
                LONG_TIMEOUT,
            )
            for path in ("/", f"/result/{old}") * 5:
                assert client.site.get(path)[0] == 200
            assert not client.sites() & set(client.site.worker_pids())
            gate.touch()
            assert client.status(ends) == "RUNNING"
        # A page is enough for a web process to take its part, as soon as that can be done.
        wait_for(
            lambda: client.site.get("/") and set(client.site.worker_pids()) <= client.sites(),
            LONG_TIMEOUT,
        )
        assert client.value(ends) is not None
        other.touch()
        assert client.value(runs_on) is not None
        assert client.run("add", 3) == 3
        assert client.supervisors() == pool
        assert set(workers) <= set(client.workers())
