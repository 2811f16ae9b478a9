"""Four sync workers and one pool on the host: who answers, who runs, who pays for a death."""

import os
import signal
from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path
from time import monotonic
from uuid import uuid4

import pytest
from prometheus_client.parser import text_string_to_metric_families

from tests.process.client import Client, gone, serving, worker_at, workers_at
from tests.support import LONG_TIMEOUT, alive, kill, wait_for

LOST = "django_tasks_local.exceptions.WorkerLost"


@pytest.fixture(scope="module")
def client() -> Iterator[Client]:
    """One site for the whole module."""
    with serving(workers=4, options={"DRAIN_TIMEOUT": 2, "METRICS": True}) as made:
        yield made


def test_every_worker_answers_for_every_id(client: Client, tmp_path: Path) -> None:
    """READY, RUNNING, the result: each of the four web workers knows each id at each moment."""
    gate = tmp_path / "gate"
    holding, _ = client.hold_all(gate)
    waiting = client.enqueue("add", 20, 22)
    assert {a["status"] for a in client.every_answer(waiting).values()} == {"READY"}
    for result_id in holding:
        answers = client.every_answer(result_id)
        assert len(answers) == 4
        assert {a["status"] for a in answers.values()} == {"RUNNING"}
        assert len({tuple(a["workers"]) for a in answers.values()}) == 1
    gate.touch()
    assert client.value(waiting) == 42
    for result_id in (waiting, *holding):
        assert {a["status"] for a in client.every_answer(result_id).values()} == {"SUCCESSFUL"}


def test_the_pool_is_the_hosts(client: Client, tmp_path: Path) -> None:
    """MAX_WORKERS = 4 is four worker processes, however many web workers enqueue."""
    gate = tmp_path / "gate"
    ids = [client.enqueue("hold", str(gate)) for _ in range(12)]
    wait_for(lambda: len(workers_at(gate)) == 4, LONG_TIMEOUT)
    assert len(client.supervisors()) == 1
    assert len(client.workers()) == 4
    gate.touch()
    assert len({client.value(result_id) for result_id in ids}) == 4


def test_progress_is_seen_from_outside(client: Client, tmp_path: Path) -> None:
    """What a task reports in a worker process is what every web worker reads."""
    gate = tmp_path / "gate"
    result_id = client.enqueue("report_and_hold", str(gate))
    worker_at(gate)
    for answer in client.every_answer(result_id).values():
        assert answer["progress"] == [3, 10, "three of ten"]
    gate.touch()
    client.value(result_id)


def test_a_killed_worker_costs_its_own_task(client: Client, tmp_path: Path) -> None:
    """FAILED within a second, naming pid and signal; the task beside it succeeds."""
    gate, beside = tmp_path / "gate", tmp_path / "beside"
    neighbour, _ = client.hold(beside)
    result_id, pid = client.hold(gate)
    started = monotonic()
    kill(pid)
    path, text = client.error(result_id)
    assert monotonic() - started < 5  # a second, with room for a loaded machine
    assert path == LOST
    assert f"Worker process {pid} was killed by SIGKILL" in text
    assert "after the task had started" in text
    beside.touch()
    client.value(neighbour)
    assert client.run("add", 1, 2) == 3


@pytest.mark.parametrize(
    ("task", "args", "reason"),
    [
        ("segfault", [], "was killed by SIGSEGV"),
        ("call_os_exit", [3], "ended with exit code 3"),
        ("call_os_exit", [0], "ended with exit code 0"),
        ("kill_myself", [int(signal.SIGABRT)], "was killed by SIGABRT"),
        ("close_descriptors", [], "lost the ring"),
    ],
)
def test_a_task_that_ends_its_worker(
    client: Client, task: str, args: list[int], reason: str
) -> None:
    """Whatever takes the process down fails that task with the reason, and nothing else."""
    path, text = client.fails(task, *args)
    assert path == LOST
    assert reason in text
    assert client.run("add", 1, 2) == 3


@pytest.mark.parametrize(
    ("task", "error"),
    [
        ("call_sys_exit", "builtins.SystemExit"),
        ("interrupt", "builtins.KeyboardInterrupt"),
        ("raise_odd", "tests.site.tasks.Odd"),
        ("return_lock", "builtins.ValueError"),
    ],
)
def test_a_task_that_raises_whatever(client: Client, task: str, error: str) -> None:
    """BaseException or not, with a text or not: the task is FAILED, and its worker lives."""
    client.run("add", 1, 2)
    workers = client.workers()
    found = client.finished(client.enqueue(task))
    assert found["status"] == "FAILED"
    assert found["errors"][0][0] == error
    assert all(map(alive, workers))
    assert client.run("add", 1, 2) == 3


def test_a_task_that_forks(client: Client) -> None:
    """A child that exits is the task's own business; one that comes back does not run on."""
    assert client.run("fork_and_reap") == 7
    assert client.run("fork_and_return") in client.workers()
    assert client.run("add", 1, 2) == 3


@pytest.mark.parametrize("method", ["fork", "spawn", "forkserver"])
def test_a_task_that_uses_processes(client: Client, method: str) -> None:
    """multiprocessing and concurrent.futures work inside a task, whatever the start method."""
    assert client.run("use_multiprocessing", method) == [0, 1, 4, 9, 16]


def test_a_tasks_own_child_can_be_terminated(client: Client) -> None:
    """Workers are deaf to SIGTERM; what a task forks is not."""
    assert client.run("terminate_own_child") == -signal.SIGTERM


def test_a_task_that_leaves_a_thread(client: Client, tmp_path: Path) -> None:
    """The thread goes on in the worker, and so does the worker."""
    path = tmp_path / "log"
    assert client.run("leave_thread", str(path)) == "done"
    wait_for(path.exists)
    assert client.run("add", 1, 2) == 3


def test_a_killed_workers_children_go_with_it(client: Client, tmp_path: Path) -> None:
    """What a task had started is killed together with its worker."""
    gate = tmp_path / "gate"
    result_id = client.enqueue("leave_child", str(gate))
    pid = worker_at(gate)
    child = int((tmp_path / "gate.child").read_text())
    assert alive(child)
    kill(pid)
    assert client.error(result_id)[0] == LOST
    wait_for(lambda: gone(child))


def test_workers_ignore_what_is_meant_for_the_pool(client: Client, tmp_path: Path) -> None:
    """systemd and terminals signal every process: a worker goes on with its task."""
    gate = tmp_path / "gate"
    result_id, pid = client.hold(gate)
    for number in (signal.SIGTERM, signal.SIGINT, signal.SIGTERM):
        kill(pid, number)
    gate.touch()
    assert client.value(result_id) == pid


def test_a_killed_pool_is_replaced(client: Client, tmp_path: Path) -> None:
    """What ran in it is WorkerLost, what waited is run by the next pool, each exactly once."""
    gate, log = tmp_path / "gate", tmp_path / "log"
    holding, _ = client.hold_all(gate)
    waiting = client.enqueue_many(20, "note", str(log))
    (old,) = client.supervisors()
    workers = client.workers()
    kill(old)
    for result_id in holding:
        path, text = client.error(result_id)
        assert path == LOST
        assert "together with its pool" in text
    for result_id in waiting:
        client.value(result_id)
    assert sorted(log.read_text().split()) == sorted(waiting)
    assert gone(*workers)
    wait_for(lambda: len(client.supervisors()) == 1)
    assert client.supervisors() != [old]


def test_every_worker_tells_the_same_metrics(client: Client, tmp_path: Path) -> None:
    """They are the host's, whoever is killed: no count is lost, doubled, or ever goes back."""
    client.run("add", 1, 2)
    before = metrics_of_all(client)
    counted = [before]
    (web, *_), (pool,) = client.site.worker_pids(), client.supervisors()
    for victim in (web, None, pool):
        gate = tmp_path / f"gate-{victim}"
        held, (worker, *_) = client.hold_all(gate)
        waiting = client.enqueue_many(5, "add", 1, 2)
        kill(victim or worker)
        if victim != pool:  # whose workers die with it
            gate.touch()
        for result_id in held:
            client.finished(result_id)
        for result_id in waiting:
            client.value(result_id)
        counted.append(metrics_of_all(client))
    for earlier, later in pairwise(counted):
        assert all(later[key] >= value for key, value in earlier.items())
    now = counted[-1]
    grown = {key: value - before.get(key, 0) for key, value in now.items()}
    assert grown["enqueued", "tests.site.tasks.add"] == 15
    assert grown["finished", "tests.site.tasks.add", "successful"] == 15
    assert grown["started", "tests.site.tasks.hold"] == 12
    assert grown["finished", "tests.site.tasks.hold", "lost"] == 5  # one worker's, then the pool's
    assert grown["finished", "tests.site.tasks.hold", "successful"] == 7
    for task in ("tests.site.tasks.add", "tests.site.tasks.hold"):  # none of which waits or runs
        ended = sum(value for key, value in now.items() if key[:2] == ("finished", task))
        assert now["enqueued", task] == ended
        assert now["started", task] == now["queue_seconds", task] == now["run_seconds", task]


def metrics_of_all(client: Client) -> dict[tuple[str, ...], float]:
    """The counters, of which every web worker tells the same."""
    answers: dict[int, str] = {}

    def all_asked() -> bool:
        _, body = client.site.get("/metrics")
        answers[body["pid"]] = body["text"]
        return set(client.site.worker_pids()) <= set(answers)

    wait_for(all_asked, LONG_TIMEOUT, message="metrics from every web worker")
    found = [counters_in(answers[pid]) for pid in client.site.worker_pids()]
    assert len(found) == 4
    assert all(each == found[0] for each in found)
    return found[0]


def counters_in(text: str) -> dict[tuple[str, ...], float]:
    """Counters by name, task and outcome, and the counts of the histograms."""
    found = {}
    for family in text_string_to_metric_families(text):
        for sample in family.samples:
            name, _, kind = sample.name.removeprefix("django_tasks_").rpartition("_")
            if kind in ("total", "count") and "task" in sample.labels:
                outcome = sample.labels.get("outcome")
                key = (name, sample.labels["task"], *([outcome] if outcome else []))
                found[key] = sample.value
    return found


def test_priorities_and_deferred_tasks(client: Client, tmp_path: Path) -> None:
    """With one worker free: higher first, equal ones in order; a deferred one at its time."""
    gate, log = tmp_path / "gate", tmp_path / "log"
    holding, _ = client.hold_all(gate)
    busy = client.enqueue("note", str(log), "late", using={"run_after_s": 3600})
    soon = client.enqueue("note", str(log), "deferred", using={"priority": 50, "run_after_s": 0.3})
    names = ["low", "one", "two", "high"]
    for name, priority in zip(names, (-5, 0, 0, 99), strict=True):
        client.enqueue("note", str(log), name, using={"priority": priority})
    kill(workers_at(gate)[0])  # its successor is the only free worker
    found = client.finished(soon)
    # The delay counts from a moment before `enqueued_at`.
    assert found["started_at"] - found["enqueued_at"] >= 0.3 - 0.01
    wait_for(lambda: len(log.read_text().split()) == 5)
    lines = log.read_text().split()
    assert [line for line in lines if line != "deferred"] == ["high", "one", "two", "low"]
    assert client.status(busy) == "READY"
    gate.touch()
    for result_id in holding:
        client.finished(result_id)


def test_deferred_tasks_run_on_time(client: Client) -> None:
    """An idle pool starts a deferred task when it falls due, not at its next look."""
    client.run("add", 1)
    late = []
    for delay_s in (0.2, 0.45, 0.7):
        found = client.finished(client.enqueue("add", 1, using={"run_after_s": delay_s}))
        late.append(found["started_at"] - found["enqueued_at"] - delay_s)
    assert min(late) > -0.01  # the delay counts from a moment before enqueued_at
    assert sorted(late)[1] < 0.25, late  # the tick that would find it otherwise takes 0.5 s


def test_tasks_that_enqueue_tasks(client: Client, tmp_path: Path) -> None:
    """On their own alias and on another one, whose pool is started for them."""
    log = tmp_path / "log"
    ids = client.run("enqueue_others", str(log), 3)
    wait_for(lambda: log.exists() and len(log.read_text().splitlines()) == 6, LONG_TIMEOUT)
    here = [client.result(each) for each in ids[:3]]
    there = [client.result(each, alias="other") for each in ids[3:]]
    assert {each["workers"][0].split("-")[0] for each in here} == {"default"}
    assert {each["workers"][0].split("-")[0] for each in there} == {"other"}


def test_large_payloads_cross(client: Client) -> None:
    """A result of 2 MiB and arguments of 1 MiB arrive whole."""
    assert client.run("add", "x" * 2**20, "y") == "x" * 2**20 + "y"
    found = client.finished(client.enqueue("tests.tasks.text", 2 * 2**20))
    assert found["value"] == "x" * 2 * 2**20


def test_strange_ids_are_unknown(client: Client) -> None:
    """Whatever stands in the URL is at worst a result that does not exist."""
    for text in ("1", "x" * 36, "%F0%9F%A6%84", str(uuid4()), "%00", "-" * 36, "0" * 36):
        assert client.site.get(f"/result/{text}")[0] == 404


def test_a_web_worker_that_dies_takes_nothing_along(client: Client, tmp_path: Path) -> None:
    """The task that it had enqueued runs on, and the others answer for it."""
    gate = tmp_path / "gate"
    status, body = client.site.post("/enqueue", {"task": "hold", "args": [str(gate)]})
    assert status == 200
    worker_at(gate)
    kill(body["pid"])
    wait_for(lambda: len(client.site.worker_pids()) == 4 and gone(body["pid"]))
    assert {a["status"] for a in client.every_answer(body["ids"][0]).values()} == {"RUNNING"}
    gate.touch()
    client.value(body["ids"][0])


def test_the_pool_costs_nothing_idle(client: Client) -> None:
    """Two seconds of a site with nothing to do: next to no processor time (a loose bound)."""
    client.run("add", 1)
    pids = [*client.site.worker_pids(), *client.site.pool_pids()]
    before = sum(map(_cpu_s, pids))
    started = monotonic()
    wait_for(lambda: monotonic() - started > 2)
    used = sum(map(_cpu_s, pids)) - before
    assert used < 0.5, f"{used:.2f} s of processor time in 2 s"


def _cpu_s(pid: int) -> float:
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")
