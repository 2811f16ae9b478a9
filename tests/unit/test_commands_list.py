"""`local_tasks list` and `show`: what they find, and how harmless it is on a terminal."""

import io
import json
import os
import unicodedata
from collections.abc import Callable
from typing import Any

import pytest
from django.core.management import CommandError, call_command
from django.tasks import task, task_backends
from django.tasks.base import TaskError
from django.test import override_settings

from django_tasks_local.inspection.text import line_of, span, write
from django_tasks_local.naming import copy_task, encode_task
from django_tasks_local.ring import Ring, unlink_objects
from tests.crash.steps import in_child
from tests.settings import TASKS

PROCESS = "django_tasks_local.ProcessPoolBackend"
NASTY = "\x1b[2J\x1b]0;owned\x07\r\u202e\u2066 \x9b31m\x00\udc80"


@task(backend="process")
def job(*args: object, **kwargs: object) -> None:
    """Any task."""


def run(*arguments: str) -> str:
    """What the command prints."""
    out = io.StringIO()
    call_command("local_tasks", *arguments, stdout=out, stderr=io.StringIO())
    return out.getvalue()


def listed(*arguments: str) -> list[dict[str, Any]]:
    """What `list --json` prints."""
    return [json.loads(line) for line in run("list", "--json", *arguments).splitlines()]


def put(
    ring: Ring, meta: bytes = b"tests.tasks:nothing", arguments: Any = ((), {}), **more: Any
) -> str:
    """One task that waits; its id."""
    encoded = ring.encode(arguments)
    return ring.enqueue(meta, encoded, **{"priority": 0, "due_ns": 0} | more)[0]


def failed(ring: Ring, error: tuple[str, str], meta: bytes = b"tests.tasks:nothing") -> str:
    """A task that has failed with this class path and traceback; its id."""
    result_id = put(ring, meta, priority=100)
    claim = ring.claim()
    assert claim is not None
    ring.finish(claim, successful=False, outcome=ring.encode(error))
    return result_id


def succeeded(ring: Ring, value: object = None, arguments: Any = ((), {})) -> str:
    """A task that has succeeded; its id."""
    result_id = put(ring, arguments=arguments, priority=100)
    claim = ring.claim()
    assert claim is not None
    ring.finish(claim, successful=True, outcome=ring.encode(value))
    return result_id


ERROR = ("builtins.ValueError", "Traceback (most recent call last):\n  x\nValueError: no 13\n")


def width(line: str) -> int:
    """How many columns a line takes."""
    wide = (2 if unicodedata.east_asian_width(each) in "WF" else 1 for each in line)
    return sum(wide)


def test_the_failures_of_last_night(site_ring: Callable[[], Ring]) -> None:
    """Without any id: which tasks failed, when, for how long they ran, and why; newest first."""
    ring = site_ring()
    first, second = failed(ring, ERROR), failed(ring, ("shop.errors.Sold", "shop.errors.Sold: out"))
    succeeded(ring)
    put(ring)
    head, *lines = run("list", "--status", "failed").splitlines()
    assert head.split() == ["STATUS", "WHEN", head.split()[2], "TOOK", "ID"]
    assert [line.split()[-1] for line in lines[::2]] == [second, first]
    assert all(line.startswith("FAILED  ") for line in lines[::2])
    assert lines[1::2] == [
        "  tests.tasks.nothing  Sold: out",
        "  tests.tasks.nothing  ValueError: no 13",
    ]
    assert max(map(len, [head, *lines])) <= 80


def test_the_order_is_by_the_latest_change(site_ring: Callable[[], Ring]) -> None:
    """An end counts, else a start, else an enqueue; whatever the status and the priority."""
    ring = site_ring()
    waiting = put(ring)
    ended = succeeded(ring)
    running = put(ring, priority=100)
    assert ring.claim() is not None
    later = put(ring, priority=-5)
    assert [each["id"] for each in listed()] == [later, running, ended, waiting]
    assert [each["id"] for each in listed("--limit", "2")] == [later, running]
    assert [each["id"] for each in listed("--limit", "0")] == [later, running, ended, waiting]
    assert [each["status"] for each in listed("--status", "running", "--status", "READY")] == [
        "READY", "RUNNING", "READY",
    ]  # fmt: skip
    assert "the newest 2 tasks; --limit shows more" in run("list", "--limit", "2")
    assert "This is the newest; --limit shows more" in run("list", "--limit", "1")
    assert "--limit" not in run("list", "--limit", "4")


def test_the_filters(site_ring: Callable[[], Ring]) -> None:
    """By import path and by queue; one that fits nothing finds nothing."""
    ring = site_ring()
    ours, other = put(ring, f"{__name__}:job".encode()), put(ring)
    report = put(ring, encode_task(copy_task(job, queue_name="reports")))
    assert [each["id"] for each in listed("--task", f"{__name__}.job")] == [report, ours]
    assert [each["id"] for each in listed("--queue", "reports")] == [report]
    assert [each["id"] for each in listed("--task", "tests.tasks.nothing")] == [other]
    assert listed("--queue", "none") == []
    assert run("list", "--queue", "none") == "No such tasks.\n"


def test_names_of_fields(site_ring: Callable[[], Ring]) -> None:
    """An object in each line; the names are Django's where it has the field."""
    ring = site_ring()
    result_id = failed(ring, ERROR, b"gone.tasks:job")
    (facts,) = listed()
    assert facts == facts | {
        "id": result_id, "backend": "process", "task": "gone.tasks.job", "imports": False,
        "status": "FAILED", "cancelled": False, "lost": False, "queue_name": None, "attempts": 1,
        "error": "ValueError: no 13", "run_after": None, "progress": None,
    }  # fmt: skip
    assert facts["enqueued_at"] <= facts["started_at"] <= facts["finished_at"]
    assert facts["finished_at"].endswith("+00:00")
    assert facts["duration_s"] >= 0
    assert facts["worker_ids"][0].startswith("process-")


def test_no_ring_is_made(site_ring: Callable[[], Ring]) -> None:
    """Where there is none, there are no tasks."""
    assert run("list") == "No such tasks.\n"
    with pytest.raises(CommandError, match="process has no such task"):
        run("show", "x")
    ring = site_ring()
    unlink_objects(ring.name)
    assert run("list") == "No such tasks.\n"


def test_looking_leaves_no_trace(site_ring: Callable[[], Ring]) -> None:
    """No word of the ring changes, the order of use included, and no process is attached."""
    ring = site_ring()
    old = failed(ring, ERROR)
    succeeded(ring)
    put(ring)
    before = bytes(ring.segment.bytes)

    def look() -> None:
        for command in (["list"], ["show", old], ["list", "--json"], ["rings"]):
            run(*command)
        with pytest.raises(SystemExit):
            run("health", "--max-wait", "0")

    in_child(look)
    assert bytes(ring.segment.bytes) == before


def test_aliases_of_other_backends_are_named(site_ring: Callable[[], Ring]) -> None:
    """One that cannot be imported, too; the list is there all the same."""
    ring = site_ring()
    result_id = put(ring)
    broken = {"BACKEND": "no.such.Backend"}
    with override_settings(TASKS={"default": TASKS["immediate"], "broken": broken} | {
        "process": {"BACKEND": PROCESS, "OPTIONS": {"NAMESPACE": namespace_of()}},
    }):  # fmt: skip
        out, err = io.StringIO(), io.StringIO()
        call_command("local_tasks", "list", stdout=out, stderr=err)
        assert result_id in out.getvalue()
        assert "Not shown: default, an ImmediateBackend." in err.getvalue()
        assert "Not shown: broken, one that cannot be imported (" in err.getvalue()
        with pytest.raises(CommandError, match=r"not a .* but an ImmediateBackend"):
            run("list", "--alias", "default")


def namespace_of() -> str:
    """The NAMESPACE of the fixture's alias."""
    backend: Any = task_backends["process"]
    return str(backend.options["NAMESPACE"])


@pytest.mark.parametrize("command", ["list", "show"])
def test_nothing_controls_the_terminal(site_ring: Callable[[], Ring], command: str) -> None:
    """Escape sequences and the like in names, messages, tracebacks, keys and values are shown."""
    ring = site_ring()
    text = f"Traceback:\n  {NASTY}\nValueError: {NASTY}\n"
    meta = f"shop{NASTY[:-1]}:job".encode()
    encoded = json.dumps({NASTY[:-1]: NASTY[:-1]}).encode()
    result_id = put(ring, meta, ((NASTY,), {NASTY: Nasty()}), metadata=encoded)
    claim = ring.claim()
    assert claim is not None
    claim.report(1, 2, NASTY[:-1])
    assert all(line.isprintable() for line in run("status").splitlines())
    ring.finish(claim, successful=False, outcome=ring.encode(("builtins.ValueError", text)))
    printed = run(command) if command == "list" else run("show", result_id, "--arguments")
    assert all(line.isprintable() for line in printed.splitlines())
    assert printed.count("\n") == len(printed.splitlines())
    assert r"\x1b[2J" in printed
    for line in run("show", result_id, "--json", "--arguments").splitlines():
        assert line.isascii()
        assert line.isprintable()


class Nasty:
    """A value whose text is not harmless."""

    def __repr__(self) -> str:
        return NASTY


def test_columns(site_ring: Callable[[], Ring]) -> None:
    """A long path keeps its end, a long error its beginning; wide characters count twice."""
    ring = site_ring()
    failed(ring, ("builtins.ValueError", f"ValueError: {'漢' * 99}"), b"a." * 60 + b"tasks:nightly")
    put(ring, b"b." * 60 + "tasks:漢字".encode())
    lines = run("list").splitlines()
    assert all(width(line) <= 80 for line in lines)
    assert "a.tasks.nightly  ValueError: 漢" in lines[4]
    assert lines[4].endswith("漢...")


@pytest.mark.parametrize(
    ("path", "text", "line"),
    [
        ("builtins.ValueError", "Traceback\nValueError: a\nsecond line\n", "ValueError: a"),
        ("builtins.KeyError", "KeyError: 1\n\nDuring handling\n\nKeyError: 2\n", "KeyError: 2"),
        ("builtins.ValueError", "Traceback\nValueError\n", "ValueError"),
        ("shop.Sold", "something else", "Sold"),
        (
            "builtins.ExceptionGroup",
            "  + Exception Group Traceback (most recent call last):\n"
            "  | ExceptionGroup: two (2 sub-exceptions)\n"
            "  +-+---------------- 1 ----------------\n"
            "    | ExceptionGroup: inner (1 sub-exception)\n",
            "ExceptionGroup: two (2 sub-exceptions)",
        ),
    ],
)
def test_the_line_of_an_error(path: str, text: str, line: str) -> None:
    """What was raised at last, and not what a message of several lines ends with."""
    assert line_of(TaskError(exception_class_path=path, traceback=text)) == line


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (-1, "0 ms"), (0.0124, "12 ms"), (1.26, "1.3 s"), (99.9, "99.9 s"), (100, "2 min"),
        (5939, "99 min"), (5941, "1.7 h"), (172_801, "2 d"), (1e9, "11,574 d"),
    ],
)  # fmt: skip
def test_spans(seconds: float, text: str) -> None:
    """A time span takes at most nine columns."""
    assert span(seconds) == text


def test_an_encoding_without_the_characters() -> None:
    """A terminal that knows ASCII only gets escapes, and no UnicodeEncodeError."""
    raw = io.BytesIO()
    stream: Any = io.TextIOWrapper(raw, encoding="ascii")
    write(stream, "größer 漢")
    stream.flush()
    assert raw.getvalue() == rb"gr\xf6\xdfer \u6f22"


# --- show -----------------------------------------------------------------------------------------


def test_show(site_ring: Callable[[], Ring]) -> None:
    """All of it: times, worker, progress, metadata and the traceback; arguments on demand."""
    ring = site_ring()
    meta = f"{__name__}:job".encode()
    result_id = put(ring, meta, ((1, "two"), {"three": [3]}), metadata=b'{"trace": "t-1"}')
    claim = ring.claim()
    assert claim is not None
    claim.report(3, 10, "three of ten")
    ring.finish(claim, successful=False, outcome=ring.encode(ERROR))
    text = run("show", result_id)
    for line in (
        f"task        {__name__}.job", "backend     process", "status      FAILED",
        "queue       default", "priority    0", "attempts    1",
        f"worker      process-{os.getpid()}",
        "progress    3 of 10  three of ten", "metadata    trace = 't-1'", "arguments   not shown",
        "error 1: builtins.ValueError\n    Traceback (most recent call last):\n      x\n    Val",
    ):  # fmt: skip
        assert f"\n  {line}" in text
    assert "two" not in text
    shown = run("show", result_id, "--arguments")
    assert "argument    1\n  argument    'two'\n  argument    three = [3]\n" in shown
    facts = json.loads(run("show", result_id, "--json"))
    assert facts["raw_metadata"] == {"trace": "t-1"}
    assert facts["errors"] == [{"exception_class_path": ERROR[0], "traceback": ERROR[1]}]
    assert facts["progress"] == {"done": 3, "total": 10, "message": "three of ten"}
    assert "args" not in facts
    facts = json.loads(run("show", result_id, "--json", "--arguments"))
    assert (facts["args"], facts["kwargs"]) == (["1", "'two'"], {"three": "[3]"})


def test_show_what_was_returned(site_ring: Callable[[], Ring]) -> None:
    """With the arguments; large values are cut."""
    result_id = succeeded(site_ring(), "x" * 5000)
    assert "xxx" not in run("show", result_id)
    text = run("show", result_id, "--arguments")
    assert "arguments   none" in text
    assert "xxx... (5,002 characters)" in text


def test_show_what_cannot_be_unpickled(
    site_ring: Callable[[], Ring], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Everything else is shown, and in its place what is wrong."""
    ring = site_ring()
    result_id = succeeded(ring, Nasty(), ((Nasty(),), {}))
    monkeypatch.delattr(f"{__name__}.Nasty")
    text = run("show", result_id, "--arguments")
    assert "arguments   (ValueError: " in text
    assert "returned    (ValueError: " in text
    assert json.loads(run("show", result_id, "--json", "--arguments"))["args"].startswith("(Value")


def test_show_states(site_ring: Callable[[], Ring]) -> None:
    """What waits, runs, was cancelled before it started, or names a task that is gone."""
    ring = site_ring()
    waiting, cancelled = put(ring, b"gone.tasks:job", due_ns=2**62), put(ring)
    ring.cancel(cancelled, running=False)
    running = put(ring)
    assert ring.claim() is not None
    assert "task        gone.tasks.job  (no such task here any more)" in run("show", waiting)
    assert "queue       unknown" in run("show", waiting)
    text = run("show", cancelled)
    assert "status      FAILED  (cancelled)" in text
    assert ", before it started" in text
    assert "  running     for " in run("show", running)


def test_show_what_is_unknown(site_ring: Callable[[], Ring]) -> None:
    """It says where it has looked, and shows the id harmlessly."""
    site_ring()
    with pytest.raises(CommandError, match=r"^x\\x1b: process has no such task, or no longer"):
        run("show", "x\x1b")


def test_one_ring_cannot_be_used(site_ring: Callable[[], Ring]) -> None:
    """Another alias's tasks are there all the same; why it cannot be is said, and is an error."""
    result_id = failed(site_ring(), ERROR)
    backend: Any = task_backends["process"]
    good = {"BACKEND": PROCESS, "OPTIONS": backend.options}
    bad = {"BACKEND": PROCESS, "OPTIONS": {"MAX_WORKERS": 0}}
    out = io.StringIO()
    with override_settings(TASKS={"bad": bad, "process": good}):
        with pytest.raises(CommandError, match=r"^bad: .*E004"):
            call_command("local_tasks", "list", "--json", stdout=out, stderr=io.StringIO())
        assert [json.loads(line)["id"] for line in out.getvalue().splitlines()] == [result_id]
        out = io.StringIO()
        with pytest.raises(CommandError, match=r"^bad: .*E004"):
            call_command("local_tasks", "status", "--json", stdout=out)
        assert json.loads(out.getvalue())["process"]["kept_results"] == 1
        assert run("show", result_id).startswith(result_id)
        assert run("cancel", result_id) == f"{result_id}: had ended.\n"
        for arguments in (["show", "x"], ["cancel", "x"], ["schedule", "--run", "x"]):
            with pytest.raises(CommandError, match="E004"):
                run(*arguments)
        for action, said in (
            ("check", "process: every invariant holds"), ("schedule", "process\n  no SCHEDULE"),
        ):  # fmt: skip
            out = io.StringIO()
            with pytest.raises(CommandError, match=r"^bad: .*E004"):
                call_command("local_tasks", action, stdout=out)
            assert said in out.getvalue()


def test_what_has_expired_is_not_shown(site_ring: Callable[[], Ring], namespace: str) -> None:
    """The same as for everybody who reads: it is gone at once, though its memory is not."""
    options = {"NAMESPACE": namespace, "MAX_WORKERS": 2, "FAILURE_TTL": 0.001}
    with override_settings(TASKS={"process": {"BACKEND": PROCESS, "OPTIONS": options}}):
        ring = site_ring()
        result_id = failed(ring, ERROR)
        while listed():
            pass
        with pytest.raises(CommandError, match="no such task"):
            run("show", result_id)
