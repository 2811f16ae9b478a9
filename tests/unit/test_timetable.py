"""A pool's clock, with a clock that the test sets: what fires, and for which time."""

import logging
from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import Any

import pytest
from django.tasks import task

from django_tasks_local import scheduled_for
from django_tasks_local.exceptions import StoreUnavailable
from django_tasks_local.metadata import decode
from django_tasks_local.pool.supervisor import Supervisor
from django_tasks_local.pool.timetable import Timetable, firing_code, newest_server
from django_tasks_local.ring import Entry, PoolState, Ring, Role
from django_tasks_local.schedules import read
from django_tasks_local.timings import SECOND_NS
from tests.rings import LIMITS, Rings, put, run
from tests.unit.test_timings import DAY_NS, HOUR_NS, MINUTE_NS, ns, wall

START_NS = ns("2026-05-01 10:00") + 1
ENTRIES: Any = {"a": {"every": 86_400, "grace": 12 * 3600}, "b": {"every": 60, "grace": 1}}
BERLIN, NEW_YORK = "Europe/Berlin", "America/New_York"


@task(backend="process")
def job(*args: Any) -> None:
    """What runs."""


@task(backend="process", priority=7)
def urgent() -> None:
    """What runs first."""


class Clock:
    """The host's clock."""

    def __init__(self) -> None:
        self.now_ns = START_NS

    def __call__(self) -> int:
        return self.now_ns


class Pool:
    """A serving pool, and what it fires."""

    def __init__(self, rings: Rings, limits: Any = LIMITS) -> None:
        rings.attach(limits, role=Role.VISITOR)  # a pool makes no ring
        self.ring = Ring(rings.name, "process", limits, Role.POOL)
        self.clock = Clock()
        self.timetable = Timetable(self.ring)

    def load(self, **entries: Any) -> None:
        """A new pool, with this schedule, takes over."""
        found = {name: {"task": f"{__name__}.job", **entry} for name, entry in entries.items()}
        self.timetable = Timetable(self.ring, read(found), clock=self.clock)
        self.look()

    def look(self) -> None:
        """Some turn of its loop, in which a tick has passed."""
        self.timetable._look_at = 0.0
        self.timetable.look(self.ring.registry.attachments())

    def fired(self) -> list[int]:
        """The times for which something waits to run; it is run."""
        found = []
        while (claim := self.ring.claim()) is not None:
            moment = scheduled_for(Result(claim))
            assert moment is not None
            found.append(round(moment.timestamp()) * SECOND_NS)
            self.ring.finish(claim, successful=True, outcome=self.ring.encode(None))
        return found

    def at(self, *moments_ns: int) -> list[int]:
        """What fires when the clock shows these moments, one after another."""
        found = []
        for moment_ns in moments_ns:
            self.clock.now_ns = moment_ns
            self.look()
            found += self.fired()
        return found

    def over(self, start_ns: int, end_ns: int, step_ns: int) -> list[int]:
        """What fires while the clock goes from here to there."""
        return self.at(*range(start_ns, end_ns, step_ns))


class Result:
    """A claim, as a result shows its metadata."""

    def __init__(self, claim: Any) -> None:
        self.raw_metadata = decode(claim.metadata)


@pytest.fixture
def pool(rings: Rings) -> Iterator[Pool]:
    """A pool without a site."""
    made = Pool(rings)
    yield made
    made.ring.attachment.detach()


def test_a_new_entry_begins_with_its_next_time(pool: Pool) -> None:
    """What was due before is nothing that it has missed."""
    pool.load(a={"cron": "0 10 * * *", "timezone": "UTC"}, b={"every": 60})
    assert pool.at(START_NS, START_NS + 59 * SECOND_NS) == []
    assert pool.at(START_NS + 60 * SECOND_NS) == [START_NS - 1 + MINUTE_NS]


def test_it_knows_when_to_look(pool: Pool) -> None:
    """At the next time of any entry."""
    assert pool.timetable.next_s() == 0
    pool.load()
    assert pool.timetable.next_s() > 10**9
    pool.load(a={"every": 3600}, b={"cron": "*/5 * * * *"})
    assert pool.timetable.next_s() == pytest.approx(300)
    pool.clock.now_ns = START_NS - 1 + 5 * MINUTE_NS - SECOND_NS // 4
    assert pool.timetable.next_s() == pytest.approx(0.25)
    pool.clock.now_ns += SECOND_NS
    assert pool.timetable.next_s() == 0


def test_old_and_new_pool_fire_each_time_once(pool: Pool) -> None:
    """At a hand-over both may look at the same moment; the new one goes on from the old one."""
    pool.load(a={"every": 60})
    old = pool.timetable
    pool.load(a={"every": 60})
    new, fired = pool.timetable, []
    for minute in range(1, 5):
        for pool.timetable in (old, new) if minute % 2 else (new, old):
            fired += pool.at(START_NS + minute * MINUTE_NS)
    assert fired == [START_NS - 1 + minute * MINUTE_NS for minute in range(1, 5)]


def test_a_reload_with_another_schedule(pool: Pool) -> None:
    """Entries that stay go on, new and changed ones begin with their next time, others are gone."""
    pool.load(a={"every": 60}, b={"every": 60}, c={"every": 60})
    assert len(pool.at(START_NS + MINUTE_NS)) == 3
    pool.clock.now_ns += 90 * SECOND_NS
    pool.load(a={"every": 60}, b={"every": 30, "args": [1]}, d={"every": 60})
    assert pool.fired() == [START_NS - 1 + 2 * MINUTE_NS]  # a has missed one
    assert len(pool.at(START_NS + 3 * MINUTE_NS)) == 3
    assert len(pool.ring.firing.rows()) == 3


@pytest.mark.parametrize(("hours", "fires"), [(1, True), (13, False)])
def test_a_site_that_was_stopped(pool: Pool, hours: int, fires: bool) -> None:
    """The newest missed time fires within `grace`, once; beyond it nothing does."""
    pool.load(**ENTRIES)
    midnight_ns = ns("2026-05-02 00:00")
    pool.at(midnight_ns - 30 * SECOND_NS)
    pool.clock.now_ns = midnight_ns + hours * HOUR_NS + 30 * SECOND_NS
    pool.load(**ENTRIES)
    assert pool.fired() == ([midnight_ns] if fires else [])
    assert pool.at(pool.clock.now_ns + 29 * SECOND_NS) == []


def test_clock_steps(pool: Pool) -> None:
    """Forward as a downtime; back a little without a second run; back by far from there on."""
    pool.load(a={"cron": "15 3 * * *", "timezone": "UTC"})
    due_ns = ns("2026-05-02 03:15")
    assert pool.over(START_NS, due_ns + MINUTE_NS, HOUR_NS) == []
    assert pool.at(due_ns + 5 * MINUTE_NS) == [due_ns]  # set forward, within grace
    assert pool.over(due_ns - 2 * HOUR_NS, due_ns + HOUR_NS, MINUTE_NS) == []  # set back
    assert pool.at(due_ns + DAY_NS + HOUR_NS) == []  # set forward, beyond grace
    assert pool.over(due_ns - HOUR_NS, due_ns + HOUR_NS, MINUTE_NS) == [due_ns]  # back by a day


@pytest.mark.parametrize(
    ("zone", "day", "hour", "expected"),
    [
        (BERLIN, "2026-03-29", 2, ["03-29 03:00 +0200"]),
        (BERLIN, "2026-10-25", 2, ["10-25 02:30 +0200"]),
        (NEW_YORK, "2026-03-08", 2, ["03-08 03:00 -0400"]),
        (NEW_YORK, "2026-11-01", 1, ["11-01 01:30 -0400"]),
    ],
)
def test_summer_time(pool: Pool, zone: str, day: str, hour: int, expected: list[str]) -> None:
    """Both ways in both zones, minute by minute: a nightly job runs once, an interval by hours."""
    start_ns, end_ns = ns(f"{day} 00:00", zone), ns(f"{day} 06:00", zone)
    pool.clock.now_ns = start_ns + 1
    pool.load(a={"cron": f"30 {hour} * * *", "timezone": zone})
    fired = pool.over(start_ns + 1, end_ns + MINUTE_NS, MINUTE_NS)
    assert [wall(each, zone) for each in fired] == expected
    pool.clock.now_ns = start_ns + 1
    pool.load(b={"every": 3600, "grace": 1})
    fired = pool.over(start_ns + 1, end_ns + MINUTE_NS, MINUTE_NS)
    assert fired == list(range(start_ns + HOUR_NS, end_ns + 1, HOUR_NS))


def test_a_slow_task_that_must_not_overlap(pool: Pool) -> None:
    """While it waits or runs its times are skipped and counted; then it goes on."""
    pool.load(a={"every": 60, "overlap": False})
    pool.clock.now_ns = START_NS + MINUTE_NS
    pool.look()
    claim = pool.ring.claim()
    assert claim is not None
    for minute in (2, 3, 4):
        pool.clock.now_ns = START_NS + minute * MINUTE_NS
        pool.look()
        assert pool.ring.claim() is None
    pool.ring.finish(claim, successful=True, outcome=pool.ring.encode(None))
    assert pool.at(pool.clock.now_ns + 30 * SECOND_NS) == []
    assert pool.at(START_NS + 5 * MINUTE_NS) == [START_NS - 1 + 5 * MINUTE_NS]
    (row,) = pool.ring.firing.rows().values()
    assert row.skipped == 3


def test_arguments_and_priority_are_those_of_the_entry(pool: Pool) -> None:
    """What was written in the settings is what the task gets."""
    pool.load(
        a={"every": 60, "args": [1, "two"], "kwargs": {"x": None}},
        b={"every": 60, "task": f"{__name__}.urgent"},
    )
    pool.clock.now_ns += MINUTE_NS
    pool.look()
    first, second = pool.ring.claim(), pool.ring.claim()
    assert first is not None
    assert second is not None
    assert (first.meta, first.arguments()) == (f"{__name__}:urgent".encode(), ((), {}))
    assert second.arguments() == ((1, "two"), {"x": None})


def test_a_task_that_has_gone_stops_no_other(pool: Pool, caplog: pytest.LogCaptureFixture) -> None:
    """Its entry is logged, and waits for a pool that finds it."""
    pool.load(a={"every": 60, "task": "tests.no_such_module.job"}, b={"every": 60})
    assert "SCHEDULE 'a' does not run: tests.no_such_module.job cannot be imported" in caplog.text
    assert len(pool.at(START_NS + MINUTE_NS)) == 1


def test_a_scripts_pool_without_a_schedule_forgets_nothing(pool: Pool) -> None:
    """The servers have one, and their next pool goes on with it; a server's pool does forget."""
    pool.load(a={"every": 60})
    for provisional, left in ((True, 1), (False, 0)):
        pool.timetable = Timetable(pool.ring, clock=pool.clock, provisional=provisional)
        pool.look()
        assert len(pool.ring.firing.rows()) == left


def test_a_look_that_fails_is_taken_again(pool: Pool, monkeypatch: pytest.MonkeyPatch) -> None:
    """As soon as the caller wants; and no core is kept busy meanwhile."""
    pool.load(a={"every": 60})

    def refuse(*_: object, **__: object) -> None:
        raise StoreUnavailable("a process is frozen inside", path="/dev/shm/ring", fix="end it")

    pool.clock.now_ns = START_NS + MINUTE_NS
    with monkeypatch.context() as patch:
        patch.setattr(pool.ring.firing, "fire", refuse)
        for _ in range(2):
            with pytest.raises(StoreUnavailable):
                pool.timetable.look(pool.ring.registry.attachments())
            assert pool.timetable.next_s() == 1
    pool.timetable.look(pool.ring.registry.attachments())
    assert pool.fired() == [START_NS - 1 + MINUTE_NS]


def test_a_full_ring_is_tried_again(rings: Rings, caplog: pytest.LogCaptureFixture) -> None:
    """It is logged once, and the time fires when there is room, if it still is within grace."""
    pool = Pool(rings, replace(LIMITS, max_pending=1))
    pool.load(a={"every": 60, "grace": 30})
    put(pool.ring)
    for second in range(60, 64):
        pool.clock.now_ns = START_NS + second * SECOND_NS
        pool.look()
    assert caplog.text.count("SCHEDULE 'a' does not run, and is tried again") == 1
    assert "MAX_PENDING" in caplog.text
    run(pool.ring)
    assert pool.at(START_NS + 80 * SECOND_NS) == [START_NS - 1 + MINUTE_NS]
    pool.ring.attachment.detach()


def test_what_was_passed_over_is_logged(pool: Pool, caplog: pytest.LogCaptureFixture) -> None:
    """And a clock that was set back by far."""
    caplog.set_level(logging.INFO, "django_tasks_local")
    pool.load(a={"every": 60, "grace": 1})
    pool.at(START_NS + HOUR_NS + 30 * SECOND_NS)
    assert "longer ago than its grace" in caplog.text
    pool.at(START_NS - HOUR_NS)
    assert "begins afresh: the clock was set back" in caplog.text


def entry(role: Role, serial: int, code: int, state: int = 0) -> Entry:
    """Some attached process."""
    return Entry(serial, role, 1, serial, 0, True, 0, -1, state, code, serial * 11)


FIRING: list[tuple[list[Entry], int]] = [
    ([], -1),
    ([entry(Role.WORKER, 5, 3), entry(Role.VISITOR, 6, -1)], -1),
    ([entry(Role.POOL, 1, 0), entry(Role.POOL, 2, 1)], 1),
    ([entry(Role.POOL, 9, 0), entry(Role.SITE, 2, 1)], 1),
    ([entry(Role.SITE, 1, 0, PoolState.SERVING), entry(Role.SITE, 2, 1)], 0),
    (
        [entry(Role.SITE, 7, 0, PoolState.SERVING), entry(Role.SITE, 2, 1, PoolState.SERVING)],
        0,
    ),
]


@pytest.mark.parametrize(("entries", "code"), FIRING)
def test_one_release_fires(entries: list[Entry], code: int) -> None:
    """That of the newest server; else of the newest script, else of the newest pool."""
    assert firing_code(entries) == code
    servers = [each for each in entries if each.state == PoolState.SERVING]
    newest = newest_server(each for each in entries if each.role is Role.SITE)
    assert newest == max(servers, key=lambda each: each.serial, default=None)


def test_the_pool_of_another_release_does_not_fire(pool: Pool) -> None:
    """Its rows stay as they are."""
    pool.load(a={"every": 60})
    before = pool.ring.firing.rows()
    other = entry(Role.SITE, 99, 3, PoolState.SERVING)
    pool.clock.now_ns += MINUTE_NS
    pool.timetable._look_at = 0.0
    pool.timetable.look([*pool.ring.registry.attachments(), other])
    assert pool.fired() == []
    assert pool.ring.firing.rows() == before


# --- whose schedule holds -------------------------------------------------------------------------


@pytest.fixture
def supervisor(rings: Rings) -> Iterator[Callable[[bool], Supervisor]]:
    """Makes a pool with a schedule; it is not run."""
    made: list[Ring] = []

    def make(foreground: bool) -> Supervisor:
        rings.attach(role=Role.VISITOR)
        made.append(Ring(rings.name, "process", LIMITS, Role.POOL))
        timetable = Timetable(made[0], read({"a": {"task": f"{__name__}.job", "every": 60}}))
        return Supervisor(
            made[0], lambda *_: 0, foreground=foreground, runnable_up_to=0, timetable=timetable
        )

    yield make
    for each in made:
        each.attachment.detach()


def server(rings: Rings, digest: int) -> Ring:
    """A web process with that SCHEDULE."""
    ring = rings.attach()
    ring.registry.set_schedule(digest)
    ring.registry.set_state(PoolState.SERVING)
    return ring


def test_another_schedule_asks_for_a_successor(
    rings: Rings, supervisor: Callable[[bool], Supervisor]
) -> None:
    """Which the server that has it may start, and those that came before may not."""
    pool = supervisor(False)
    before = server(rings, pool._timetable.digest)
    pool._look_around()
    assert not before.leadership.successor_wanted(before.registry.serial, server=True)
    newest = server(rings, 99)
    pool._look_around()
    assert newest.leadership.successor_wanted(newest.registry.serial, server=True)
    assert not before.leadership.successor_wanted(before.registry.serial, server=True)


def test_a_script_has_no_say(rings: Rings, supervisor: Callable[[bool], Supervisor]) -> None:
    """A command whose environment has no schedule does not take the servers' away."""
    pool = supervisor(False)
    server(rings, pool._timetable.digest)
    script = rings.attach()
    pool._look_around()
    assert not script.leadership.successor_wanted(script.registry.serial, server=False)


def test_a_pool_in_the_foreground_keeps_its_own(
    rings: Rings, supervisor: Callable[[bool], Supervisor], caplog: pytest.LogCaptureFixture
) -> None:
    """It is what somebody has started with that environment; it says so, once."""
    pool = supervisor(True)
    newest = server(rings, 99)
    for _ in range(2):
        pool._look_around()
    assert not newest.leadership.successor_wanted(newest.registry.serial, server=True)
    assert caplog.text.count("is not that of this pool") == 1
