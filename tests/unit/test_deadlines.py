"""Limits are counted by the monotonic clock, whatever becomes of the other one."""

from types import SimpleNamespace
from typing import Any

import pytest

from django_tasks_local.pool import deadlines
from django_tasks_local.pool.deadlines import Deadlines
from django_tasks_local.store import time_limit_word

WORKER: Any = SimpleNamespace(index=3, pid=77)


class World:
    """A ring with one task, a crew and two clocks."""

    def __init__(self) -> None:
        self.wall_s, self.clock_s = 1_000_000.0, 50.0
        self.task: Any = None
        self.done: list[str] = []
        self.ends_before_the_kill = False
        self.stops = self.killing = self
        self.deadlines = Deadlines(self, self)  # type: ignore[arg-type]

    def running(self, worker: Any) -> Any:
        return self.task

    def note(self, run: Any, loss: int) -> bool:
        self.done.append("note")
        return not self.ends_before_the_kill

    def tell_to_stop(self, pid: int) -> None:
        self.done.append("tell")

    def kill_one(self, pid: int) -> None:
        self.done.append("kill")

    def begin(self, limit_s: float | None = None, word: int = 1) -> None:
        self.task = SimpleNamespace(
            word=word, run=word, started_at_ns=int(self.wall_s * 1e9), asked=False,
            time_limit=time_limit_word(limit_s, 5),
        )  # fmt: skip

    def after(self, seconds: float, step_s: float = 0) -> list[str]:
        """What is done at a look so much later, the wall clock set by `step_s` besides."""
        self.clock_s += seconds
        self.wall_s += seconds + step_s
        self.done = []
        self.deadlines.look([WORKER])
        return self.done


@pytest.fixture
def world(monkeypatch: pytest.MonkeyPatch) -> World:
    """Its clocks are those of the module."""
    made = World()
    clocks = SimpleNamespace(monotonic=lambda: made.clock_s, time_ns=lambda: int(made.wall_s * 1e9))
    monkeypatch.setattr(deadlines, "time", clocks)
    made.deadlines.look([WORKER])
    return made


def test_told_and_then_killed(world: World) -> None:
    """At the limit its worker is told, again and again, and killed after the grace."""
    world.begin(10)
    assert world.after(0.5) == []
    assert world.deadlines.next_s() == pytest.approx(9.5)
    assert world.after(9.4) == []
    assert world.after(0.2) == ["tell"]
    assert world.after(0.01) == []
    assert world.after(1) == ["tell"]
    assert world.deadlines.next_s() == pytest.approx(deadlines.AGAIN_S)
    assert world.after(4) == ["note", "kill"]


def test_a_task_that_ends_in_time_is_not_killed(world: World) -> None:
    """Where the note is refused there is no signal."""
    world.begin(10)
    world.ends_before_the_kill = True
    world.after(0)
    assert world.after(20) == ["note"]


@pytest.mark.parametrize("step_s", [-3600, 3600])
def test_a_clock_that_is_set(world: World, step_s: float) -> None:
    """Before the first look it shifts the limit by less than a look; later not at all."""
    world.begin(10)
    assert world.after(1, step_s) == []
    assert world.after(8.9, -step_s) == []
    assert world.after(1.2, step_s) == ["tell"]
    assert world.after(5.1) == ["note", "kill"]


def test_a_pool_that_comes_late(world: World) -> None:
    """What began before is taken at its word."""
    world.begin(10)
    world.deadlines = Deadlines(world, world)  # type: ignore[arg-type]
    assert world.after(12) == ["tell"]


def test_no_limit(world: World) -> None:
    """A task without one is looked at, and left alone."""
    world.begin(None)
    assert world.after(10**6) == []
    assert world.deadlines.next_s() == float("inf")


def test_cancelled(world: World) -> None:
    """The grace counts from when the pool sees the request; the next task has its own."""
    world.begin(None)
    world.after(100)
    world.task.asked = True
    assert world.after(1) == ["tell"]
    assert world.after(4.9) == ["tell"]
    world.begin(None, word=2)
    assert world.after(1) == []
    world.task.asked = True
    assert world.after(1) == ["tell"]
    assert world.after(5.1) == ["note", "kill"]
