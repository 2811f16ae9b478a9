"""Groups, follow-ups and chains."""

import asyncio
from collections.abc import Callable
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from django.core.management import CommandError, call_command
from django.tasks import TaskResultStatus
from django.tasks.exceptions import InvalidTask, TaskResultDoesNotExist

from django_tasks_local import (
    achain,
    await_group,
    chain,
    enqueue_again,
    enqueue_many,
    in_group,
    policy,
    previous_result,
    results,
    step,
    wait_group,
)
from django_tasks_local.following import find_follow_up
from django_tasks_local.test import captured_tasks, run_waiting
from tests import tied_tasks as tied
from tests.contract.conftest import INLINE_TOO, Bench, finished
from tests.support import LONG_TIMEOUT, wait_for

FAILED, SUCCESSFUL = TaskResultStatus.FAILED, TaskResultStatus.SUCCESSFUL


def follower(bench: Bench, result: Any) -> Any:
    """Return the result of the one task that follows this one, when it has ended."""

    def found() -> list[Any]:
        return [each for each in results(bench.alias, limit=None) if each.after == result.id]

    wait_for(lambda: bool(found()))
    (only,) = found()
    return finished(only)


def ids(bench: Bench) -> set[str]:
    """The ids of all that the backend has: other tests may have left some."""
    return {each.id for each in results(bench.alias, limit=None)}


def nothing_follows(bench: Bench, result: Any) -> None:
    """The end of a task and what follows it are one step: after the end it is there, or never."""
    assert [each for each in results(bench.alias, limit=None) if each.after == result.id] == []


# --- groups ----------------------------------------------------------------------------------


@INLINE_TOO
def test_a_group(bench: Bench) -> None:
    """What a block enqueues is in its group, by whatever verb; inside its tasks nothing is."""
    with in_group("import-7"):
        first = bench.enqueue(tied.idle)
        several = enqueue_many(bench.on(tied.idle), [((), {})] * 2)
        inner = bench.enqueue(tied.letter, "x")
    outside = bench.enqueue(tied.letter, "y")
    assert {each.group for each in (first, *several, inner)} == {"import-7"}
    assert outside.group == "letters"
    ended = wait_group("import-7", bench.alias, timeout=LONG_TIMEOUT)
    assert {each.id for each in ended} == {first.id, inner.id, *(each.id for each in several)}
    assert all(each.status == SUCCESSFUL and each.group == "import-7" for each in ended)
    assert [each.id for each in results(bench.alias, group="letters")] == [outside.id]
    assert results(bench.alias, group="import") == []
    assert wait_group("nobody", bench.alias) == []
    again = enqueue_again(finished(first))
    assert finished(again).group == "import-7"


def does_not_import(*args: object) -> None:
    """In place of `get_result`, as in a process without the code of a task."""
    raise TaskResultDoesNotExist


def test_a_group_that_takes_too_long(
    bench: Bench, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The text names the group and how many of it have not ended; async it is the same."""
    gate = tmp_path / "gate"
    with in_group("slow"):
        held = bench.enqueue(tied.hold, str(gate))
        waiting = bench.on(tied.idle, run_after=timedelta(hours=1)).enqueue()
    with pytest.raises(TimeoutError, match=r"Group 'slow': 2 of its tasks .* after 0\.2 s"):
        wait_group("slow", bench.alias, timeout=0.2)
    with monkeypatch.context() as patch:
        patch.setattr(type(bench.backend), "get_result", does_not_import)
        with pytest.raises(TimeoutError, match="Group 'slow'"):
            wait_group("slow", bench.alias, timeout=0.2)
        # Cancelled: it leaves no thread behind that waits on, and that the loop's end waits for.
        with pytest.raises(TimeoutError):
            asyncio.run(asyncio.wait_for(await_group("slow", bench.alias), 0.1))
    assert waiting.cancel()
    gate.touch()
    ended = asyncio.run(await_group("slow", bench.alias, timeout=LONG_TIMEOUT))
    assert {each.id for each in ended} == {held.id, waiting.id}


@pytest.mark.parametrize("name", ["", "x" * 201, 7, "\udc80"])
def test_what_is_no_group(name: Any) -> None:
    """The text says what is wanted."""
    with pytest.raises(ValueError, match=r"group .*: it must be a string that is not empty"):
        in_group(name).__enter__()
    with pytest.raises(ValueError, match="it must be a string"):
        wait_group(name, "thread")
    with pytest.raises(InvalidTask, match="it must be a string"):
        policy(group=name)(lambda: None)


# --- follow-ups ------------------------------------------------------------------------------


@INLINE_TOO
def test_what_follows_a_success(bench: Bench) -> None:
    """It gets the id, runs under its own policy, and is in the group of the first task."""
    with in_group("g"):
        first = bench.enqueue(tied.work)
    second = follower(bench, first)
    third = follower(bench, second)
    assert second.return_value == f"more {first.id}"
    assert third.return_value == f"after {second.id}"
    nothing_follows(bench, third)
    assert second.task.module_path == "tests.tied_tasks.note_more"
    assert second.args == [first.id]
    assert {second.group, third.group} == {"g"}
    assert len(wait_group("g", bench.alias)) == 3


@INLINE_TOO
def test_what_follows_a_failure(bench: Bench, tmp_path: Path) -> None:
    """With retries once, at the end; a task that succeeds after all is no failure."""
    first = bench.enqueue(tied.work, fails=True)
    assert follower(bench, first).return_value == f"after {first.id}"
    twice = bench.enqueue(tied.fail_twice)
    assert follower(bench, twice).return_value == f"after {twice.id}"
    assert finished(twice).attempts == 2
    nothing_follows(bench, finished(bench.enqueue(tied.begin, 1)))
    none = finished(bench.enqueue(tied.hold, str(tmp_path)))
    assert none.status == SUCCESSFUL
    nothing_follows(bench, none)


@INLINE_TOO
def test_what_follows_a_cancelled_task(bench: Bench) -> None:
    """That of a task which never started, too."""
    late = bench.on(tied.hold, run_after=timedelta(hours=1)).enqueue("")
    assert late.cancel()
    assert follower(bench, late).return_value == f"after {late.id}"


def test_what_follows_a_task_that_is_stopped(bench: Bench, tmp_path: Path) -> None:
    """At its time limit, or cancelled while it runs."""
    overdue = bench.enqueue(tied.overdue, str(tmp_path / "never"))
    assert follower(bench, overdue).return_value == f"after {overdue.id}"
    gate = tmp_path / "gate"
    held = bench.enqueue(tied.hold, str(gate))
    wait_for(Path(f"{gate}.running").exists)
    assert held.cancel()
    gate.touch()
    assert follower(bench, held).return_value == f"after {held.id}"


@pytest.mark.parametrize("bench", ["process"], indirect=True)
def test_what_follows_a_lost_worker(bench: Bench) -> None:
    """The pool enqueues it."""
    lost = bench.enqueue(tied.die)
    assert follower(bench, lost).return_value == f"after {lost.id}"
    assert finished(lost).errors[0].exception_class_path.endswith("WorkerLost")


@INLINE_TOO
def test_many_with_what_follows(bench: Bench) -> None:
    """Each has its own."""
    made = enqueue_many(bench.on(tied.work), [((False,), {}), ((True,), {})])
    assert follower(bench, made[0]).return_value == f"more {made[0].id}"
    assert follower(bench, made[1]).return_value == f"after {made[1].id}"


@policy(then="tests.tied_tasks.nothing")
def to_nothing() -> None:
    """What follows is not there."""


@policy(then="tests.tied_tasks.Path")
def to_no_task() -> None:
    """What follows is no task."""


@pytest.mark.parametrize(
    ("function", "text"),
    [
        (to_nothing, r"^then='tests\.tied_tasks\.nothing': .* cannot be imported: ImportError"),
        (to_no_task, r"^then='tests\.tied_tasks\.Path': tests\.tied_tasks\.Path is not a task but"),
    ],
)
def test_what_cannot_follow(bench: Bench, function: Callable[..., Any], text: str) -> None:
    """It is refused when the first task is enqueued, before anything is stored."""
    made, before = bench.on(tied.idle), ids(bench)
    object.__setattr__(made, "func", function)
    with pytest.raises(InvalidTask, match=text):
        made.enqueue()
    assert ids(bench) == before
    with pytest.raises(InvalidTask, match="bill is unique, and cannot follow another task"):
        find_follow_up("tests.unique_tasks.bill", "default")


# --- chains ----------------------------------------------------------------------------------


@INLINE_TOO
def test_a_chain(bench: Bench) -> None:
    """Each step sees the result of the one before; they are one group, to the last."""
    begin, add = bench.on(tied.begin), bench.on(tied.add)
    first = chain(step(begin, 1), step(add, 10), step(add, number=100), bench.on(tied.idle))
    assert first.task.module_path == "tests.tied_tasks.begin"
    group: str = first.group  # type: ignore[attr-defined]
    assert group.startswith("chain-")
    ended = wait_group(group, bench.alias, timeout=LONG_TIMEOUT)
    assert [each.return_value for each in reversed(ended)] == [1, 11, 111, None]
    after = [each.after for each in reversed(ended)]
    assert after == ["", *(each.id for each in reversed(ended[1:]))]
    once: Any = chain(bench.on(tied.work), bench.on(tied.idle))
    named = [each.meta for each in once._snapshot.ties.plan]
    assert not any(b"note_more" in meta for meta in named)  # the next step has taken its place
    again = asyncio.run(achain(step(begin, 5), step(add, 5)))
    assert [each.return_value for each in wait_group(again.group, bench.alias)] == [10, 5]  # type: ignore[attr-defined]


@INLINE_TOO
def test_a_chain_stops(bench: Bench) -> None:
    """After a failure the rest is dropped; what the policy names follows."""
    begin, add = bench.on(tied.begin), bench.on(tied.add)
    with in_group("broken"):
        chain(step(begin, "text"), step(add, 10), step(add, 100))
    ended = wait_group("broken", bench.alias, timeout=LONG_TIMEOUT)
    assert [each.status for each in ended] == [SUCCESSFUL, FAILED, SUCCESSFUL]
    assert ended[0].return_value == f"after {ended[1].id}"


@INLINE_TOO
def test_a_chain_with_large_arguments(bench: Bench) -> None:
    """They go along with the first step."""
    begin, text = bench.on(tied.begin), "x" * 5000
    first = chain(
        step(begin, 1), step(begin, text), step(begin, 2), step(begin, [text, b"y" * 9000])
    )
    ended = wait_group(first.group, bench.alias, timeout=LONG_TIMEOUT)  # type: ignore[attr-defined]
    assert [each.return_value for each in reversed(ended)] == [1, text, 2, [text, b"y" * 9000]]


def test_what_is_no_chain(bench: Bench) -> None:
    """Each is refused before anything is stored."""
    begin, before = bench.on(tied.begin), ids(bench)
    with pytest.raises(TypeError, match="at least one step"):
        chain()
    with pytest.raises(TypeError, match="is not a task but of type"):
        chain(step(begin, 1), len)  # type: ignore[arg-type]
    late = begin.using(run_after=timedelta(seconds=1))
    with pytest.raises(InvalidTask, match="has run_after, and cannot follow"):
        chain(step(begin, 1), step(late, 1))
    with pytest.raises(InvalidTask, match="belongs to backend 'inline', and cannot follow"):
        chain(step(begin, 1), step(tied.begin.using(backend="inline"), 1))
    assert ids(bench) == before
    assert previous_result() is None


def test_chains_of_others() -> None:
    """On Django's own backends the steps follow each other at once, as long as they succeed."""
    ran: list[Any] = []

    begin = tied.begin.using(backend="immediate")
    fail = tied.fail_twice.using(backend="immediate")
    first = chain(step(begin, 1), fail, step(begin, 2))
    assert (first.return_value, ran) == (1, [])
    with in_group("ignored"):
        assert begin.enqueue(3).return_value == 3


@pytest.mark.parametrize("bench", ["process"], indirect=True)
def test_the_list_of_a_group(bench: Bench, capsys: pytest.CaptureFixture[str]) -> None:
    """`local_tasks list --group` shows it."""
    with in_group("shown"):
        shown = finished(bench.enqueue(tied.idle))
    hidden = finished(bench.enqueue(tied.idle))
    call_command("local_tasks", "list", "--group", "shown", "--alias", bench.alias)
    text = capsys.readouterr().out
    assert shown.id in text
    assert hidden.id not in text
    with pytest.raises(CommandError, match="a group has a name that is not empty"):
        call_command("local_tasks", "list", "--group", "")


@pytest.mark.parametrize("bench", ["inline"], indirect=True)
def test_follow_ups_in_tests(bench: Bench) -> None:
    """They run where the task ends: inside `enqueue`, `run_waiting` or a wait, and not before."""
    late = bench.on(tied.work, run_after=timedelta(hours=1)).enqueue()
    assert [each.id for each in run_waiting()] == [late.id]
    assert len(results(bench.alias, status=SUCCESSFUL)) == 3
    with captured_tasks(run=False) as captured:
        first = bench.enqueue(tied.work)
        run_waiting()
        (waiting,) = results(bench.alias, status=TaskResultStatus.READY)
        assert waiting.after == first.id
    assert [each.id for each in captured] == [first.id]
