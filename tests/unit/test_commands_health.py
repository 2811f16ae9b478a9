"""`local_tasks health`: its three exit statuses, and the sentence that goes with each."""

import io
import json
import os
import signal
from collections.abc import Callable
from datetime import timedelta

import pytest
from django.core.management import CommandError, call_command
from django.tasks import task
from django.test import override_settings
from django.utils import timezone

from django_tasks_local.inspection import health as examined
from django_tasks_local.naming import copy_task, encode_task
from django_tasks_local.ring import Ring, Role, ring_name
from django_tasks_local.ring.format import layout as at
from django_tasks_local.ring.shm import segment
from tests.crash.steps import in_child
from tests.rings import Rings, put

PROCESS = "django_tasks_local.ProcessPoolBackend"
MADE_WAIT = ("--max-wait", "0")


@task(backend="process")
def job() -> None:
    """Any task."""


def health(*arguments: str) -> tuple[int, str]:
    """Its exit status, and what it prints."""
    out = io.StringIO()
    try:
        call_command("local_tasks", "health", "--alias", "process", *arguments, stdout=out)
    except SystemExit as ended:
        return int(str(ended.code)), out.getvalue()
    return 0, out.getvalue()


def says(*arguments: str) -> tuple[int, str]:
    """The same for the one alias."""
    status, text = health(*arguments)
    return status, text.splitlines()[0]


def become_pool(ring: Ring) -> None:
    """From now on a pool is attached."""
    ring.attachment.become(Role.POOL)


def test_all_is_well(site_ring: Callable[[], Ring]) -> None:
    """No ring yet; one in which nothing waits; one in which something does, but not for long."""
    assert says() == (0, "fine: process: There is no ring yet: nothing was enqueued since the host "
                         "started.")  # fmt: skip
    ring = site_ring()
    assert says() == (0, "fine: process: 0 waiting, 0 deferred, 0 running.")
    put(ring)
    put(ring, due_ns=2**62)
    assert says() == (0, "fine: process: 1 waiting, 1 deferred, 0 running.")


def test_nobody_runs_what_waits(site_ring: Callable[[], Ring]) -> None:
    """Then it says what would, and after starts that came to nothing, where the reason is."""
    ring = site_ring()
    waiting = put(ring)
    status, text = says(*MADE_WAIT)
    assert status == 1
    assert text.startswith(f"look at it: process: tests.tasks.noop ({waiting}) has been due for ")
    assert "no pool runs. A site process starts one by its first request" in text
    ring.words[at.code_word(ring.registry.code, at.C_START_FAILURES)] = 3
    assert "The last 3 starts of one came to nothing: the site's log" in says(*MADE_WAIT)[1]


def test_a_task_that_waits_for_too_long(site_ring: Callable[[], Ring]) -> None:
    """Though a pool runs: the one that is due for longest is named."""
    ring = site_ring()
    become_pool(ring)
    first = put(ring, priority=-50)
    put(ring)
    status, text = says(*MADE_WAIT)
    assert (status, "longer than the 0 ms of --max-wait" in text) == (1, True)
    assert first in text


def test_a_deferred_task_waits_from_its_own_moment(site_ring: Callable[[], Ring]) -> None:
    """Not from its enqueue: neither while it is deferred, nor when it is due and in its queue."""
    ring = site_ring()
    become_pool(ring)
    put(ring, due_ns=2**62)
    due_at = timezone.now() + timedelta(hours=1)
    meta = encode_task(copy_task(job, run_after=due_at))
    ring.enqueue(meta, ring.encode(((), {})), priority=0, due_ns=0)
    status, text = health("--json", *MADE_WAIT)
    assert (status, json.loads(text)["aliases"]["process"]["longest_wait_s"]) == (0, 0)


def test_a_queue_that_is_nearly_full(namespace: str, site_ring: Callable[[], Ring]) -> None:
    """Before enqueue raises QueueFull."""
    options = {"NAMESPACE": namespace, "MAX_WORKERS": 2, "MAX_PENDING": 10}
    with override_settings(TASKS={"process": {"BACKEND": PROCESS, "OPTIONS": options}}):
        ring = site_ring()
        for _ in range(8):
            put(ring)
        assert health()[0] == 0
        put(ring, due_ns=2**62)
        assert says() == (
            1, "look at it: process: 9 tasks wait, and at 10 (MAX_PENDING) enqueue raises "
            "QueueFull.",
        )  # fmt: skip


def test_a_ring_that_cannot_be_used(
    site_ring: Callable[[], Ring], monkeypatch: pytest.MonkeyPatch
) -> None:
    """A damaged header: status 2 and the reason, in JSON, too."""
    ring = site_ring()
    ring.words[at.H_MAGIC] = 1
    ring.attachment.detach()
    monkeypatch.setattr(segment, "_segments", {})
    status, text = says()
    assert (status, "not a ring of django-tasks-local" in text) == (2, True)
    assert text.startswith("UNUSABLE: process: /dev/shm/")
    status, text = health("--json")
    facts = json.loads(text)
    assert (status, facts["status"], facts["aliases"]["process"]["status"]) == (2, 2, 2)


def test_options_that_are_wrong(namespace: str) -> None:
    """Status 2: no process of the site can use that ring."""
    options = {"NAMESPACE": namespace, "MAX_WORKERS": 0}
    with override_settings(TASKS={"process": {"BACKEND": PROCESS, "OPTIONS": options}}):
        status, text = says()
    assert (status, "MAX_WORKERS" in text) == (2, True)


def test_a_process_that_keeps_the_lock(
    site_ring: Callable[[], Ring], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Status 2: nobody can enqueue. It is named, and waited for only a moment."""
    monkeypatch.setattr(examined, "STUCK_S", 0.05)
    ring = site_ring()
    stopped = os.fork()
    if not stopped:
        mine = Ring(ring.name, "process", ring.attachment.limits, Role.SITE)
        mine._mutex.run(lambda: os.kill(os.getpid(), signal.SIGSTOP))
        os._exit(0)
    os.waitpid(stopped, os.WUNTRACED)
    try:
        status, text = says()
    finally:
        os.kill(stopped, signal.SIGKILL)
        os.waitpid(stopped, 0)
    assert status == 2
    assert f"Process {stopped} has the lock" in text
    assert f"kill -CONT {stopped}" in text


def test_the_task_of_a_dead_worker(site_ring: Callable[[], Ring]) -> None:
    """As long as nobody is there who settles it: here, in `list` and in `show`."""
    ring = site_ring()
    running = put(ring)
    in_child(lambda: Ring(ring.name, "process", ring.attachment.limits, Role.SITE).claim())
    assert health()[0] == 0  # a site is there, which will
    ring.attachment.detach()
    before = bytes(ring.segment.bytes)
    status, text = says()
    assert (status, "The workers of 1 task have died" in text) == (1, True)
    out = io.StringIO()
    call_command("local_tasks", "list", stdout=out, stderr=io.StringIO())
    call_command("local_tasks", "show", running, stdout=out)
    call_command("local_tasks", "show", running, "--json", stdout=out)
    assert "  its worker has died\n" in out.getvalue()
    assert "status      RUNNING  (its worker has died, and it will be FAILED" in out.getvalue()
    assert '"orphan": true' in out.getvalue()
    assert bytes(ring.segment.bytes) == before


def test_what_is_told_for_programs(site_ring: Callable[[], Ring]) -> None:
    """Numbers of each alias, and which aliases were not examined."""
    ring = site_ring()
    put(ring)
    facts = json.loads(health("--json")[1])
    assert list(facts) == ["status", "aliases", "stranded", "not_examined"]
    process = facts["aliases"]["process"]
    assert process["longest_wait_s"] >= 0
    assert (process["waiting"], process["deferred"], process["running"]) == (1, 0, 0)
    assert (process["pools"], process["sites"]) == (0, 1)
    assert facts["not_examined"]["immediate"] == "an ImmediateBackend"
    assert "not examined: immediate, an ImmediateBackend.\n" in health()[1]


def test_tasks_under_another_key(
    site_ring: Callable[[], Ring], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Tasks that wait in a ring of this settings file, to which no alias leads, are told."""
    old = Rings()
    old.name = ring_name("process", "of the key before")
    try:
        stranded = old.attach(path="/srv/site/settings.py")
        put(stranded)
        stranded.attachment.detach()
        monkeypatch.setattr(
            "django_tasks_local.pool.project.settings_path", lambda: "/srv/site/settings.py"
        )
        site_ring()
        status, text = health()
        facts = json.loads(health("--json")[1])
    finally:
        old.close()
    assert status == 1
    assert f"look at it: 1 task stranded in {old.name}, to which no alias" in text
    assert facts["stranded"] == {old.name: 1}


@pytest.mark.parametrize("value", ["-1", "nan"])
def test_a_wait_that_is_none(site_ring: Callable[[], Ring], value: str) -> None:
    """It is refused by name."""
    site_ring()
    with pytest.raises(CommandError, match=f"--max-wait {value}.* must be 0 or more seconds"):
        health(f"--max-wait={value}")
