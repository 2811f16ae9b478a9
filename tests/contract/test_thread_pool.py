"""What only ThreadPoolBackend does: threads on demand, close, fork."""

import logging
import os
import threading
from pathlib import Path
from typing import Any

import pytest
from django.tasks import TaskResultStatus, task_backends
from django.tasks.exceptions import TaskResultDoesNotExist

from django_tasks_local import under_test
from django_tasks_local.backends import thread
from tests import tasks
from tests.contract.conftest import Bench, finished
from tests.contract.thread_scripts import script
from tests.support import wait_for


@pytest.fixture
def bench(tmp_path: Path) -> Any:
    """The thread backend alone."""
    bench = Bench("thread", tmp_path)
    yield bench
    bench.close()


def test_hands_over_the_very_objects(bench: Bench) -> None:
    """Nothing is copied on the way in or out."""
    thing = object()
    result = bench.run(tasks.echo, thing)
    assert result.args[0] is thing
    assert result.return_value[0][0] is thing


def test_threads_start_on_demand(bench: Bench) -> None:
    """One task after another needs one thread; a second is started when the first is busy."""
    bench.configure(MAX_WORKERS=5)
    workers = set()
    for _ in range(10):
        workers.update(bench.run(tasks.nothing).worker_ids)
        # After the outcome there are signals to send; only then is the thread free again.
        wait_for(lambda: bench.backend._store().idle == 1)
    assert workers == {f"thread-{os.getpid()}-t1"}
    release = bench.occupy()
    assert bench.run(tasks.nothing).worker_ids[0] == f"thread-{os.getpid()}-t2"
    release()


def test_close_leaves_no_thread(bench: Bench) -> None:
    """A closed pool's threads end with what they are running, and its results are gone."""
    result = bench.run(tasks.nothing)
    release = bench.occupy()

    def names() -> list[str]:
        return [t.name for t in threading.enumerate() if t.name.startswith("thread-")]

    assert names()
    old = bench.backend
    old.close()
    assert names()
    release()
    wait_for(lambda: not names())
    with pytest.raises(TaskResultDoesNotExist):
        old.get_result(result.id)
    assert finished(bench.enqueue(tasks.add, 1)).return_value == 1


def test_close_says_what_is_lost(bench: Bench, caplog: pytest.LogCaptureFixture) -> None:
    """Closing with tasks waiting logs how many, that they will not run, and which."""
    bench.set_workers(1)
    release = bench.occupy()
    first = bench.enqueue(tasks.nothing)
    bench.backend.close()
    release()
    assert (
        "alias=thread closed: 1 task waiting, which will not run: "
        f"tests.tasks.nothing id={first.id}" in caplog.text
    )
    release = bench.occupy()
    ids = [bench.enqueue(tasks.nothing).id for _ in range(5)]
    bench.backend.close()
    release()
    assert "closed: 5 tasks waiting" in caplog.text
    assert f"id={ids[2]} and 2 more" in caplog.text
    assert ids[3] not in caplog.text


def test_says_where_results_can_be_read(bench: Bench) -> None:
    """An unknown id may be that of another process; the error says so, and what to use."""
    with pytest.raises(TaskResultDoesNotExist) as caught:
        bench.backend.get_result("00000000-0000-4000-8000-000000000000")
    text = str(caught.value)
    assert "'00000000-0000-4000-8000-000000000000'" in text
    assert f"process {os.getpid()}" in text
    assert "only the process that enqueued" in text
    assert "ProcessPoolBackend" in text
    assert "1,000 finished results (MAX_RESULTS)" in text


def test_a_task_does_not_end_its_own_pool(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    """Even if it connects to no database, which in the runner's thread announces their end."""
    monkeypatch.setattr(under_test, "under_test", lambda: True)
    monkeypatch.setattr(under_test, "_ends", [thread._end_before_databases_go])
    assert bench.value(tasks.connect_to_no_database) == "still here"
    old = bench.backend
    tasks.connect_to_no_database.func()
    assert old._held.closed


def test_new_options_replace_the_pool(bench: Bench) -> None:
    """A pool with other options for the same alias takes the old one's place."""
    bench.run(tasks.nothing)
    (old,) = [pool for pool in thread._pools.values() if pool.alias == "thread"]
    with bench.settings(OPTIONS={"MAX_WORKERS": 1}):
        bench.run(tasks.nothing)
        assert old.closed
        assert len([pool for pool in thread._pools.values() if pool.alias == "thread"]) == 1


def test_no_more_threads_to_be_had(
    bench: Bench, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """Where no thread can be started the task stays READY, and a later enqueue tries again."""

    def refuse(self: threading.Thread) -> None:
        raise RuntimeError("can't start new thread")

    bench.set_workers(1)
    with monkeypatch.context() as patch:
        patch.setattr(threading.Thread, "start", refuse)
        result = bench.enqueue(tasks.add, 1)
    assert result.status == TaskResultStatus.READY
    assert "cannot start a thread" in caplog.text
    bench.run(tasks.nothing)
    assert finished(result).return_value == 1


def test_fewer_threads_than_allowed(
    bench: Bench, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """Where a second thread cannot be started the first does the work, and nothing is logged."""

    def refuse(self: threading.Thread) -> None:
        raise RuntimeError("can't start new thread")

    release = bench.occupy()
    with monkeypatch.context() as patch:
        patch.setattr(threading.Thread, "start", refuse)
        result = bench.enqueue(tasks.nothing)
    release()
    assert finished(result).worker_ids == [f"thread-{os.getpid()}-t1"]
    assert "cannot start" not in caplog.text


def test_two_enqueues_at_once_start_one_thread(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whoever finds, once inside, that another one has started the thread starts none."""
    wanted = iter([True, False])
    pool = bench.backend._pool()
    monkeypatch.setattr(pool, "_wants_thread", lambda: next(wanted))
    pool.grow()
    assert pool._threads == []


def test_a_fault_of_ours_does_not_end_the_thread(
    bench: Bench, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """Should running a task raise against all promises, it is logged and the thread goes on."""

    def fail(*_: Any, **__: Any) -> None:
        raise SystemExit("a fault")

    bench.set_workers(1)
    with monkeypatch.context() as patch:
        patch.setattr(thread, "run", fail)
        result = bench.enqueue(tasks.nothing)
        wait_for(lambda: result.id in caplog.text)
    assert bench.value(tasks.add, 1) == 1


def test_task_that_cannot_be_imported(
    bench: Bench, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """A task that a worker cannot import is FAILED with the import's error, and logged."""
    from django_tasks_local.naming import load_task

    bench.set_workers(1)
    release = bench.occupy()
    task = tasks.nothing
    result = bench.enqueue(task)
    monkeypatch.delattr(tasks, "nothing")
    load_task.cache_clear()
    with caplog.at_level(logging.ERROR, "django_tasks_local"):
        release()
        wait_for(lambda: "cannot be imported" in caplog.text)
    monkeypatch.undo()
    (error,) = finished(result).errors
    assert error.exception_class is AttributeError
    assert "nothing" in error.traceback


def test_fork(tmp_path: Path) -> None:
    """A forked child starts with nothing of its parent's, even forked amid the parent's work."""
    _, output = script(
        """
first = on(tasks.add).enqueue(1, 1)
gate = sys.argv[1]
held = [on(tasks.hold).enqueue(f"{gate}{n}") for n in range(2)]
from tests.support import wait_for
wait_for(lambda: all(Path(f"{gate}{n}.running").exists() for n in range(2)))
waiting = on(tasks.add).enqueue(2, 2)
backend = on(tasks.add).get_backend()
with backend._pool().store._lock:  # As if another thread was inside when this one forks.
    child = os.fork()
if not child:
    from tests.support import wait_for
    from django.tasks.exceptions import TaskResultDoesNotExist
    for known in (first, waiting):
        try:
            known.refresh()
        except TaskResultDoesNotExist:
            print("child: unknown", flush=True)
    mine = on(tasks.pid).enqueue()
    wait_for(lambda: mine.refresh() or mine.is_finished)
    print("child:", mine.return_value == os.getpid(), flush=True)
    sys.exit()
os.waitpid(child, 0)
for n in range(2):
    Path(f"{gate}{n}").touch()
wait_for(lambda: waiting.refresh() or waiting.is_finished)
print("parent:", waiting.return_value)
""",
        tmp_path / "gate",
    )
    assert [line for line in output.splitlines() if ":" in line[:7]] == [
        "child: unknown",
        "child: unknown",
        "child: True",
        "parent: 4",
    ]


def test_a_task_that_forks() -> None:
    """A child that comes back from a task ends there: it runs no tasks and stores no outcome."""
    _, output = script(
        """
result = on(tasks.fork_and_return).enqueue()
others = [on(tasks.note).enqueue("/dev/stdout", f"task {n}") for n in range(3)]
from tests.support import wait_for
for each in [result, *others]:  # which print as well
    wait_for(lambda: each.refresh() or each.is_finished)
print("child exited with", result.return_value)
"""
    )
    assert "child exited with 1" in output
    assert sorted(line for line in output.splitlines() if line.startswith("task")) == [
        f"task {n}" for n in range(3)
    ]


def test_registry_is_per_thread_safe() -> None:
    """Threads that come at once open one pool between them."""
    barrier = threading.Barrier(8)
    stores = []

    def look() -> None:
        backend: Any = task_backends["thread"]
        barrier.wait()
        stores.append(backend._store())

    threads = [threading.Thread(target=look) for _ in range(8)]
    for each in threads:
        each.start()
    for each in threads:
        each.join()
    assert len({id(store) for store in stores}) == 1
