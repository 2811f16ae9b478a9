"""`local_tasks` and `local_worker`: what they print, and what they refuse."""

import getpass
import io
import json
import os
import re
import signal
from collections.abc import Callable
from typing import Any

import pytest
from django.core.management import CommandError, call_command
from django.tasks import task_backends
from django.tasks.exceptions import TaskResultDoesNotExist
from django.test import override_settings

from django_tasks_local.management.commands.local_tasks import _ACTIONS, Command
from django_tasks_local.ring import Limits, Ring, Role, ring_exists
from django_tasks_local.ring.format import layout as at
from django_tasks_local.ring.shm import segment
from tests.crash.steps import in_child
from tests.rings import Rings
from tests.settings import TASKS
from tests.support import shm_objects

PROCESS = "django_tasks_local.ProcessPoolBackend"


@pytest.fixture
def ring(site_ring: Callable[[], Ring]) -> Callable[[], Ring]:
    """Settings with one process backend; makes its ring, and attaches as a site that enqueued."""
    return site_ring


def run(*arguments: str) -> str:
    """What the command prints."""
    out = io.StringIO()
    call_command("local_tasks", *arguments, stdout=out)
    return out.getvalue()


def enqueue(ring: Ring, due_ns: int = 0) -> str:
    """One task."""
    arguments = ring.encode(((), {}))
    return ring.enqueue(b"tests.tasks:nothing", arguments, priority=0, due_ns=due_ns)[0]


def test_nothing_to_see(ring: Callable[[], Ring]) -> None:
    """Where there is no ring the commands say which one they mean, and make nothing."""
    backend: Any = task_backends["process"]
    name = backend.spec().name
    for command in (["status"], ["destroy", "--no-input"]):
        said = run(*command)
        assert f"no ring /dev/shm{name}s" in said
        assert f"user {getpass.getuser()} with settings module tests.settings" in said
        assert f"NAMESPACE {backend.checked_options.namespace!r}" in said
    facts = json.loads(run("status", "--json"))["process"]
    assert (facts["ring"], facts["looked_for"]) == (None, name)
    assert "there is no ring" in run("check")
    assert not [name for name in shm_objects() if backend.spec().name[1:] in name]


def test_no_ring_but_others(ring: Callable[[], Ring], rings: Rings) -> None:
    """With another key, say: the other rings of this user are named, with their projects."""
    other = rings.attach(path="/srv/\x1b[1mshop/settings.py")
    said = run("status")
    assert f"{other.name} (/srv/\\x1b[1mshop/settings.py)" in said
    err = io.StringIO()
    call_command("local_tasks", "list", stdout=io.StringIO(), stderr=err)
    assert other.name in err.getvalue()
    others = json.loads(run("status", "--json"))["process"]["other_rings"]
    assert others[other.name] == ["/srv/\x1b[1mshop/settings.py"]


@pytest.mark.parametrize("name", [*_ACTIONS, "rings"])
def test_options_of_django_stand_where_they_like(ring: Callable[[], Ring], name: str) -> None:
    """Before the action and behind it; what is given in one place holds."""
    parser = Command().create_parser("manage.py", "local_tasks")
    action = [name, "id"] if name in ("show", "cancel", "retry") else [name]
    options = ["--settings", "x", "--pythonpath", "y", "--traceback", "--no-color", "-v", "0"]
    for words in ([*action, *options], [*options, *action], [*options[:4], *action, *options[4:]]):
        found = vars(parser.parse_args(words))
        assert (found["settings"], found["pythonpath"]) == ("x", "y")
        assert (found["traceback"], found["no_color"], found["verbosity"]) == (True, True, 0)
    found = vars(parser.parse_args(action))
    assert (found["settings"], found["no_color"], found["verbosity"]) == (None, False, 1)
    if name in ("status", "health", "list", "schedule", "check", "rings"):
        ring()
        run(name, "--no-color", "-v", "0")


def test_status(ring: Callable[[], Ring]) -> None:
    """Counts, the running task with its worker, memory, and who is attached."""
    made = ring()
    running, _ = enqueue(made), enqueue(made)
    enqueue(made, due_ns=2**62)
    assert made.claim() is not None
    facts = json.loads(run("status", "--json"))["process"]
    assert (facts["waiting"], facts["deferred"], len(facts["running"])) == (1, 1, 1)
    (task,) = facts["running"]
    assert task["id"] == running
    assert task["task"] == "tests.tasks.nothing"
    assert task["worker_pid"] == os.getpid()
    assert task["age_s"] >= 0
    assert [
        facts[key] for key in ("kept_results", "evicted", "expired", "lost_workers", "killed")
    ] == [0] * 5
    assert 0 < facts["reserved_bytes"] < facts["shm_size"]
    assert [(each["pid"], each["role"]) for each in facts["attached"]] == [(os.getpid(), "site")]
    text = run("status", "--alias", "process")
    assert "waiting 1   deferred 1   running 1" in text
    worker = rf"in worker {os.getpid()} \({running}\)"
    assert re.search(rf"running tests.tasks.nothing for \d\.\d s {worker}", text)
    assert f"attached site {os.getpid()} since" in text


def test_status_of_a_pool_whose_state_is_damaged(ring: Callable[[], Ring]) -> None:
    """It is shown without one: a damaged ring is what somebody looks at."""
    made = ring()
    made.attachment.become(Role.POOL)
    made.registry.set_field(at.E_STATE, 77)
    (attached,) = json.loads(run("status", "--json"))["process"]["attached"]
    assert (attached["role"], attached["state"]) == ("pool", None)
    assert f"attached pool {os.getpid()} since" in run("status")


def test_check(ring: Callable[[], Ring]) -> None:
    """A sound ring; then a sentence and status 1 for a broken one, and --fix mends it."""
    made = ring()
    enqueue(made)
    assert "every invariant holds" in run("check")
    made.words[at.H_RUNNING] = 7
    out = io.StringIO()
    with pytest.raises(CommandError, match="check --fix") as caught:
        call_command("local_tasks", "check", stdout=out)
    assert caught.value.returncode == 1
    assert "7" in out.getvalue()
    assert "every invariant holds" in run("check", "--fix")
    assert "every invariant holds" in run("check")
    assert made.counts().waiting == 1


def test_cancel(ring: Callable[[], Ring]) -> None:
    """What waits is taken out, what runs is asked to stop, what has ended stays as it is."""
    made = ring()
    running, waiting, deferred = enqueue(made), enqueue(made), enqueue(made, due_ns=2**62)
    claim = made.claim()
    assert claim is not None
    assert run("cancel", "--waiting", running) == f"{running}: runs, and was left alone.\n"
    assert not claim.stop_asked
    said = run("cancel", waiting, running, deferred)
    assert said.splitlines() == [
        f"{waiting}: cancelled.",
        f"{running}: runs, and was asked to stop.",
        f"{deferred}: cancelled.",
    ]
    assert claim.stop_asked
    for result_id in (waiting, deferred):
        assert made.get(result_id).cancelled
    assert run("cancel", waiting) == f"{waiting}: had ended.\n"
    assert made.upkeep.check() == []


def test_cancel_what_is_gone_at_once(
    ring: Callable[[], Ring], monkeypatch: pytest.MonkeyPatch
) -> None:
    """A result that is evicted before the command looks at it again was cancelled all the same."""
    waiting = enqueue(ring())
    backend: Any = task_backends["process"]

    def gone(result_id: str) -> None:
        raise TaskResultDoesNotExist(result_id)

    monkeypatch.setattr(backend.site(), "get", gone)
    assert run("cancel", waiting) == f"{waiting}: cancelled.\n"


def test_cancel_what_is_unknown(ring: Callable[[], Ring]) -> None:
    """It is named, the exit status tells, and the others are cancelled; no ring is made."""
    unknown = "00000000-0000-8000-8000-000000000000"
    with pytest.raises(CommandError, match=r"^2 ids unknown to process\.$"):
        run("cancel", unknown, "x\n")
    backend: Any = task_backends["process"]
    assert not ring_exists(backend.spec().name)
    made = ring()
    waiting = enqueue(made)
    out, err = io.StringIO(), io.StringIO()
    with pytest.raises(CommandError, match=r"^1 id unknown to process\.$"):
        call_command("local_tasks", "cancel", unknown, waiting, stdout=out, stderr=err)
    assert out.getvalue() == f"{waiting}: cancelled.\n"
    assert err.getvalue() == f"{unknown}: there is no such task, or no longer.\n"


def test_destroy_refuses_while_processes_are_attached(ring: Callable[[], Ring]) -> None:
    """--force does it all the same."""
    made = ring()
    name = made.name

    def from_outside() -> None:
        segment._segments.clear()
        with pytest.raises(CommandError, match="processes are attached"):
            run("destroy", "--no-input")
        assert ring_exists(name)
        assert "removed" in run("destroy", "--no-input", "--force")
        assert not ring_exists(name)

    in_child(from_outside)


def test_status_needs_nobody(ring: Callable[[], Ring]) -> None:
    """It says who is stopped inside and which worker has died, and waits for neither."""
    made = ring()
    running = enqueue(made)
    in_child(lambda: Ring(made.name, "process", made.attachment.limits, Role.SITE).claim())
    stopped = os.fork()
    if not stopped:
        mine = Ring(made.name, "process", made.attachment.limits, Role.SITE)
        mine._mutex.run(lambda: os.kill(os.getpid(), signal.SIGSTOP))
        os._exit(0)
    os.waitpid(stopped, os.WUNTRACED)
    try:
        facts = json.loads(run("status", "--json"))["process"]
        text = run("status")
    finally:
        os.kill(stopped, signal.SIGKILL)
        os.waitpid(stopped, 0)
    assert facts["stuck_inside"] == stopped
    assert f"process {stopped} has the lock" in text
    assert f"kill -CONT {stopped}" in text
    assert [(task["id"], task["worker_lives"]) for task in facts["running"]] == [(running, False)]
    assert f"which has died, ({running})" in text


@pytest.mark.parametrize(("answer", "left"), [("y", False), ("no", True), ("", True)])
def test_destroy_asks(
    ring: Callable[[], Ring], monkeypatch: pytest.MonkeyPatch, answer: str, left: bool
) -> None:
    """Only a yes removes it."""
    made = ring()
    made.attachment.detach()
    monkeypatch.setattr("builtins.input", lambda question: answer)
    assert ("Left as it is" in run("destroy")) is left
    assert ring_exists(made.name) is left


def test_destroy_where_nobody_can_be_asked(
    ring: Callable[[], Ring], monkeypatch: pytest.MonkeyPatch
) -> None:
    """`< /dev/null`: it removes nothing, and names the option."""
    ring().attachment.detach()

    # And `<&-`, with which Python has no standard input at all.
    for stream in (io.StringIO(), None):
        monkeypatch.setattr("sys.stdin", stream)
        with pytest.raises(CommandError, match=r"Nothing was removed.*--no-input"):
            run("destroy")
    backend: Any = task_backends["process"]
    assert ring_exists(backend.spec().name)


def test_destroy_looks_again_after_the_answer(
    ring: Callable[[], Ring], monkeypatch: pytest.MonkeyPatch
) -> None:
    """A process that attaches while the question waits keeps its ring."""
    made = ring()
    made.attachment.detach()
    pids: list[int] = []
    told, tell = os.pipe()

    def attach_meanwhile(question: str) -> str:
        pids.append(os.fork())
        if not pids[0]:
            Ring(made.name, "process", made.attachment.limits, Role.SITE)
            os.write(tell, b"!")
            signal.pause()
        assert os.read(told, 1) == b"!"
        return "y"

    monkeypatch.setattr("builtins.input", attach_meanwhile)
    try:
        with pytest.raises(CommandError, match="processes are attached"):
            run("destroy")
        assert made.segment.intact()
    finally:
        os.kill(pids[0], signal.SIGKILL)
        os.waitpid(pids[0], 0)
        os.close(told)
        os.close(tell)


def test_aliases() -> None:
    """An unknown one, one of another kind, none, and more than one where one is meant."""
    with pytest.raises(CommandError, match="TASKS has no alias 'nobody'"):
        run("status", "--alias", "nobody")
    with pytest.raises(CommandError, match=r"TASKS\['thread'\] is no"):
        run("status", "--alias", "thread")
    with (
        override_settings(TASKS={"default": TASKS["thread"]}),
        pytest.raises(CommandError, match="No alias of TASKS has"),
    ):
        run("status")
    two = {"default": {"BACKEND": PROCESS}, "other": {"BACKEND": PROCESS}}
    with (
        override_settings(TASKS=two),
        pytest.raises(CommandError, match=r"default, other.*--alias"),
    ):
        call_command("local_worker")


def test_a_store_that_cannot_be_used(
    ring: Callable[[], Ring], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its reason is the command's error, without a traceback."""
    made = ring()
    made.segment.words[at.H_MAGIC] = 1
    made.attachment.detach()
    monkeypatch.setattr(segment, "_segments", {})
    with pytest.raises(CommandError, match="not a ring of django-tasks-local"):
        run("status")
    assert isinstance(made.attachment.limits, Limits)
