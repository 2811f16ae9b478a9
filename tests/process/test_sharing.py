"""Which processes share a ring, and whose options count."""

from pathlib import Path

from tests.process.client import (
    environment,
    fresh_namespace,
    gone,
    serving,
    unlink_rings,
    worker_at,
    workers_at,
)
from tests.process.project import Project
from tests.support import LONG_TIMEOUT, Site, kill, stays, wait_for

DERIVED = {"DTL_TASKS": '{"default": {"BACKEND": "django_tasks_local.ProcessPoolBackend",'
           ' "QUEUES": [], "OPTIONS": {"MAX_WORKERS": 1, "MAX_PENDING": 100}}}'}  # fmt: skip


def test_two_sites_with_two_keys(tmp_path: Path) -> None:
    """The default NAMESPACE comes from SECRET_KEY: an id of one site says nothing to the other."""
    with (
        serving(workers=1, env=DERIVED | {"DTL_SECRET_KEY": f"one {tmp_path}"}) as one,
        serving(workers=1, env=DERIVED | {"DTL_SECRET_KEY": f"two {tmp_path}"}) as two,
    ):
        result_id = one.enqueue("add", 1, 2)
        assert one.value(result_id) == 3
        assert two.site.get(f"/result/{result_id}")[0] == 404
        objects = one.site.objects() | two.site.objects()
    unlink_rings(objects)


def test_one_site_from_two_directories(tmp_path: Path) -> None:
    """Key and settings module decide, not the directory; two that live side by side are told."""
    one, two = Project(tmp_path / "one"), Project(tmp_path / "two")
    key = DERIVED | {"DTL_SECRET_KEY": str(tmp_path)}
    with serving(workers=1, env=one.env | key) as first:
        result_id = first.enqueue("add", 1, 2)
        assert first.value(result_id) == 3
        with serving(workers=1, env=two.env | key) as second:
            assert second.value(result_id) == 3
            assert "give each its own NAMESPACE" in second.site.log()
            assert str(one.folder) in second.site.log()
        objects = first.site.objects()
    unlink_rings(objects)


def test_limits_apply_at_once(tmp_path: Path) -> None:
    """A second site with other options: the newest ones count for everybody."""
    gate = tmp_path / "gate"
    with serving(workers=1, options={"MAX_WORKERS": 1}) as client:
        ids = [client.enqueue("hold", str(gate)) for _ in range(6)]
        worker_at(gate)
        stays(lambda: len(workers_at(gate)) == 1, 1)
        env = {"DTL_NAMESPACE": client.namespace}
        with serving(workers=1, options={"MAX_WORKERS": 3, "MAX_PENDING": 4}, env=env) as other:
            other.site.get("/")
            wait_for(lambda: len(workers_at(gate)) == 3, LONG_TIMEOUT)
            stays(lambda: len(workers_at(gate)) == 3, 1)
            other.enqueue("add", 1)
            assert client.refused("add", 1)["error"] == "QueueFull"
        gate.touch()
        for result_id in ids:
            client.value(result_id)


def test_fewer_workers_apply_at_once(tmp_path: Path) -> None:
    """Idle workers beyond a lowered MAX_WORKERS take no further task, and go."""
    first, second = tmp_path / "first", tmp_path / "second"
    with serving(workers=1, options={"MAX_WORKERS": 4}) as client:
        ids = [client.enqueue("hold", str(first)) for _ in range(4)]
        wait_for(lambda: len(workers_at(first)) == 4, LONG_TIMEOUT)
        first.touch()
        for result_id in ids:
            client.value(result_id)
        env = {"DTL_NAMESPACE": client.namespace}
        with serving(workers=1, options={"MAX_WORKERS": 1}, env=env) as other:
            other.site.get("/")
            ids = [other.enqueue("hold", str(second)) for _ in range(4)]
            worker_at(second)
            stays(lambda: len(workers_at(second)) == 1, 1)
            # The pool itself and this worker.
            wait_for(lambda: len(client.site.pool_pids()) == 2)
            second.touch()
            for result_id in ids:
                client.value(result_id)


def test_sizes_wait_until_nobody_is_attached() -> None:
    """SLOT_SIZE of a running ring: the header wins; after a full stop it counts."""
    with fresh_namespace() as namespace:
        small, large = {"SLOT_SIZE": 512}, {"SLOT_SIZE": 2048}
        settings = "tests.site.settings"
        with Site(settings=settings, workers=1, env=environment(namespace, **small)) as first:
            first.post("/enqueue", {"task": "add", "args": [1]})
            with Site(settings=settings, workers=1, env=environment(namespace, **large)) as second:
                assert second.post("/enqueue", {"task": "add", "args": [1]})[0] == 200
                assert second.log().count("WARNING") >= 1
                assert "the old sizes (512" in second.log()
        with Site(settings=settings, workers=1, env=environment(namespace, **large)) as third:
            assert third.post("/enqueue", {"task": "add", "args": [1]})[0] == 200
            assert "kept results are dropped" in third.log()


def test_the_site_that_started_the_pool_goes(tmp_path: Path) -> None:
    """The pool is the host's: the other site of the same ring keeps it, and its task."""
    gate = tmp_path / "gate"
    with serving(workers=1) as client:
        client.site.get("/")
        env = {"DTL_NAMESPACE": client.namespace}
        # An outside pool has the mark of its starter, so that one is ended without a `with`.
        with serving(workers=1, env=env) as starter:
            result_id, worker = starter.hold(gate)
            kill(starter.site.pid)
            for pid in starter.site.worker_pids():
                kill(pid)
            wait_for(lambda: gone(starter.site.pid))
            stays(lambda: client.status(result_id) == "RUNNING", 2.5)
            gate.touch()
            assert client.value(result_id) == worker
            for pid in starter.supervisors():
                kill(pid)
