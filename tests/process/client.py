"""What the process tests share: a site with a ring of its own, and its user's view of it."""

import json
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from uuid import uuid4

from django_tasks_local import ProcessPoolBackend
from django_tasks_local.ring import Look, Role, ring_name
from django_tasks_local.ring.format import layout as at
from django_tasks_local.ring.shm.objects import SEMAPHORES
from tests.leaks import remove_objects
from tests.support import LONG_TIMEOUT, Site, alive, command_of, unlink_shm, wait_for

FINISHED = ("SUCCESSFUL", "FAILED")


class Client:
    """Enqueues and reads over HTTP. Every request may be answered by another web worker."""

    def __init__(self, site: Site, namespace: str) -> None:
        self.site = site
        self.namespace = namespace

    def enqueue(self, task: str, *args: Any, **data: Any) -> str:
        """Enqueues a task of tests/site/tasks.py, or one by its full path; returns the id."""
        return self.enqueue_many(1, task, *args, **data)[0]

    def enqueue_many(self, count: int, task: str, *args: Any, **data: Any) -> list[str]:
        """Enqueues it so many times with one request."""
        status, body = self.site.post(
            "/enqueue", {"task": task, "args": args, "count": count, **data}
        )
        assert status == 200, body
        ids: list[str] = body["ids"]
        return ids

    def refused(self, task: str, *args: Any, **data: Any) -> dict[str, str]:
        """Enqueues what must be refused; returns the error's name and text."""
        status, body = self.site.post("/enqueue", {"task": task, "args": args, **data})
        assert status == 503, body
        error: dict[str, str] = body
        return error

    def result(self, result_id: str, alias: str = "default") -> dict[str, Any]:
        """Return a result as some web worker sees it."""
        status, body = self.site.get(f"/result/{result_id}?alias={alias}")
        assert status == 200, f"{result_id}: {status} {body}"
        found: dict[str, Any] = body
        return found

    def status(self, result_id: str) -> str:
        """Its status alone."""
        status: str = self.result(result_id)["status"]
        return status

    def finished(self, result_id: str, timeout_s: float = LONG_TIMEOUT) -> dict[str, Any]:
        """Wait for the end of a task, and return its result."""
        last: dict[str, Any] = {}

        def look() -> bool:
            last.update(self.result(result_id))
            return last["status"] in FINISHED

        wait_for(look, timeout_s, message=f"the end of {result_id}")
        return last

    def value(self, result_id: str) -> Any:
        """Wait for the end of a task that must succeed; return what it returned."""
        found = self.finished(result_id)
        assert found["status"] == "SUCCESSFUL", found["errors"]
        return found["value"]

    def error(self, result_id: str) -> tuple[str, str]:
        """Wait for the end of a task that must fail; return the class path and the text."""
        found = self.finished(result_id)
        assert found["status"] == "FAILED", found
        path, text = found["errors"][0]
        return path, text

    def run(self, task: str, *args: Any, **data: Any) -> Any:
        """Enqueues it and returns its value."""
        return self.value(self.enqueue(task, *args, **data))

    def fails(self, task: str, *args: Any) -> tuple[str, str]:
        """Enqueues it and returns its error."""
        return self.error(self.enqueue(task, *args))

    def hold(self, gate: Path) -> tuple[str, int]:
        """Start a task that holds until `gate` exists; return its id and its worker."""
        result_id = self.enqueue("hold", str(gate))
        return result_id, worker_at(gate)

    def hold_all(self, gate: Path, workers: int = 4) -> tuple[list[str], list[int]]:
        """Do so in each worker; return the ids, and the workers in no order of theirs."""
        ids = self.enqueue_many(workers, "hold", str(gate))
        wait_for(lambda: len(workers_at(gate)) == workers, LONG_TIMEOUT, f"all workers at {gate}")
        return ids, workers_at(gate)

    def every_answer(self, result_id: str) -> dict[int, dict[str, Any]]:
        """Asks until every web worker has answered; the last answer of each by its pid."""
        answers: dict[int, dict[str, Any]] = {}

        def all_asked() -> bool:
            found = self.result(result_id)
            answers[found["pid"]] = found
            return set(self.site.worker_pids()) <= set(answers)

        wait_for(all_asked, LONG_TIMEOUT, message="an answer from every web worker")
        return answers

    def supervisors(self) -> list[int]:
        """Return the pids of this site's pools, without their workers.

        Two web workers may start one at once; the slower one ends before it has attached.
        """
        attached: set[int] = set()
        for alias in ("default", "other"):
            look = Look.into(ring_name(alias, self.namespace), alias)
            if look is not None:
                attached |= {entry.pid for entry in look.attached() if entry.role is Role.POOL}
        return [pid for pid in self.site.pool_pids() if is_supervisor(pid) and pid in attached]

    def sites(self) -> set[int]:
        """The processes that keep the pool alive."""
        look = self._look()
        return {entry.pid for entry in look.attached() if entry.role is Role.SITE}

    def all_compared(self) -> bool:
        """Whether each web worker is such a process, and the pool has compared its files."""
        words = self._look().registry.words
        newest, compared = at.code_word(0, at.C_NEWEST), at.code_word(0, at.C_RUNNABLE_UP_TO)
        return set(self.site.worker_pids()) <= self.sites() and words[newest] <= words[compared]

    def _look(self) -> Look:
        look = Look.into(ring_name("default", self.namespace), "default")
        assert look is not None
        return look

    def workers(self) -> list[int]:
        """Pids of the pools' worker processes."""
        return [pid for pid in self.site.pool_pids() if not is_supervisor(pid)]


def is_supervisor(pid: int) -> bool:
    """Whether this is a pool, not one of its workers (a pool leads a session, they a group)."""
    try:
        return os.getsid(pid) == pid and "--worker-of" not in command_of(pid)
    except ProcessLookupError:
        return False


def workers_at(gate: Path) -> list[int]:
    """Pids of the workers that have come to a gate."""
    return sorted(
        int(path.suffix[1:])
        for path in gate.parent.glob(f"{gate.name}.*")
        if path.suffix[1:].isdigit()
    )


def worker_at(gate: Path) -> int:
    """Wait for a worker at a gate."""
    return wait_for(lambda: workers_at(gate), LONG_TIMEOUT, message=f"a worker at {gate}")[0]


def gone(*pids: int) -> bool:
    """Whether all of them have ended."""
    return not any(map(alive, pids))


def unlink_rings(objects: set[str]) -> None:
    """Remove rings, given their mapped objects.

    Who makes a semaphore has it mapped under a name that is gone, so those go by the segments'.
    """
    rings = {name[:-1] for name in objects if name.startswith("dtl-")}
    unlink_shm(objects | {f"sem.{ring}{letters}" for ring in rings for letters in SEMAPHORES})


@contextmanager
def fresh_namespace() -> Iterator[str]:
    """Provide a NAMESPACE of its own, and remove its rings at the end."""
    name = f"test-{uuid4().hex}"
    try:
        yield name
    finally:
        remove_objects(name, ["other"])


def environment(namespace: str, **options: Any) -> dict[str, Any]:
    """Return what tests/site/settings.py wants to know."""
    return {
        "DTL_NAMESPACE": namespace,
        "DTL_OPTIONS": json.dumps({"MAX_WORKERS": 4} | options),
        "DJANGO_SETTINGS_MODULE": "tests.site.settings",
    }


@contextmanager
def serving(
    *, options: dict[str, Any] | None = None, env: dict[str, str] | None = None, **site: Any
) -> Iterator[Client]:
    """Run a site under a real server, and provide its client."""
    with fresh_namespace() as namespace:
        merged = environment(namespace, **(options or {})) | (env or {})
        settings = merged["DJANGO_SETTINGS_MODULE"]
        with Site(settings=settings, env=merged, **site) as made:
            yield Client(made, merged["DTL_NAMESPACE"])


@contextmanager
def reading(namespace: str, **options: Any) -> Iterator[ProcessPoolBackend]:
    """Return the ring as a visitor in this process: it keeps no pool alive, and starts none."""
    params = {"QUEUES": [], "OPTIONS": {"MAX_WORKERS": 4, "NAMESPACE": namespace} | options}
    backend = ProcessPoolBackend("default", params)
    try:
        yield backend
    finally:
        backend.close()
