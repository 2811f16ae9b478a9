"""The times of an entry, and what is done about them: whatever the clock does."""

from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from itertools import pairwise
from zoneinfo import ZoneInfo

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from django_tasks_local.timings import (
    CORRECTION_NS,
    SECOND_NS,
    Act,
    Cron,
    Every,
    Timing,
    Verdict,
    judge,
)

MINUTE_NS, HOUR_NS, DAY_NS = 60 * SECOND_NS, 3600 * SECOND_NS, 86_400 * SECOND_NS
GRACE_NS = 600 * SECOND_NS
BERLIN, NEW_YORK = "Europe/Berlin", "America/New_York"


def ns(text: str, zone: str = "UTC", fold: int = 0) -> int:
    """A moment on a wall clock, such as 2026-03-29 02:30, in Unix ns."""
    moment = datetime.fromisoformat(text).replace(tzinfo=ZoneInfo(zone), fold=fold)
    return int(moment.timestamp()) * SECOND_NS


def wall(moment_ns: int, zone: str) -> str:
    """What a wall clock shows then, with the offset from UTC."""
    moment = datetime.fromtimestamp(moment_ns // SECOND_NS, UTC).astimezone(ZoneInfo(zone))
    return f"{moment:%m-%d %H:%M %z}"


def run(timing: Timing, start: str, end: str, zone: str) -> list[str]:
    """All times from one wall-clock moment to another."""
    found, moment_ns, end_ns = [], ns(start, zone) - 1, ns(end, zone)
    while (moment_ns := timing.after(moment_ns)) <= end_ns:
        found.append(wall(moment_ns, zone))
    return found


# --- times ----------------------------------------------------------------------------------------


def test_every_is_aligned_to_the_epoch() -> None:
    """Whoever asks, and whenever a process started: the times are the same."""
    half_hour = Every(30 * MINUTE_NS)
    assert half_hour.after(ns("2026-05-01 10:00") - 1) == ns("2026-05-01 10:00")
    assert half_hour.after(ns("2026-05-01 10:00")) == ns("2026-05-01 10:30")
    assert half_hour.newest(0, ns("2026-05-01 10:29")) == ns("2026-05-01 10:00")
    assert half_hour.newest(ns("2026-05-01 10:00"), ns("2026-05-01 10:29")) == 0


@pytest.mark.parametrize(
    ("zone", "day", "gap", "after_gap"),
    [
        (BERLIN, "2026-03-29", "02:30", "03-29 03:00 +0200"),
        (NEW_YORK, "2026-03-08", "02:30", "03-08 03:00 -0400"),
    ],
)
def test_what_falls_into_the_hour_that_is_left_out_runs_after_it(
    zone: str, day: str, gap: str, after_gap: str
) -> None:
    """A fixed time that no clock shows that day is made up for when the clocks have gone on."""
    hour, minute = gap.split(":")
    (found,) = run(Cron(f"{minute} {hour} * * *", zone), f"{day} 00:00", f"{day} 23:00", zone)
    assert found == after_gap


@pytest.mark.parametrize(
    ("zone", "day", "first", "offset"),
    [
        (BERLIN, "2026-10-25", "10-25 02:30 +0200", 3600),
        (NEW_YORK, "2026-11-01", "11-01 01:30 -0400", 3600),
    ],
)
def test_what_falls_into_the_hour_that_comes_twice_runs_once(
    zone: str, day: str, first: str, offset: int
) -> None:
    """A fixed time that clocks show twice that day is the first of both, also if asked between."""
    hour, minute = first[6:11].split(":")
    timing = Cron(f"{minute} {hour} * * *", zone)
    assert run(timing, f"{day} 00:00", f"{day} 23:00", zone) == [first]
    ran_ns = timing.after(ns(f"{day} 00:00", zone))
    for moment_ns in (ran_ns, ran_ns + 45 * MINUTE_NS, ran_ns + 75 * MINUTE_NS):
        assert wall(timing.after(moment_ns), zone)[6:11] == f"{hour}:{minute}"
        assert timing.after(moment_ns) > moment_ns + 20 * HOUR_NS


@pytest.mark.parametrize(
    ("zone", "day", "hours"),
    [
        (BERLIN, "2026-03-29", 23),
        (BERLIN, "2026-10-25", 25),
        (NEW_YORK, "2026-03-08", 23),
        (NEW_YORK, "2026-11-01", 25),
    ],
)
def test_what_runs_all_the_time_goes_by_real_hours(zone: str, day: str, hours: int) -> None:
    """``*/20 * * * *`` runs every twenty minutes, over both changes of the clocks."""
    next_day = f"{datetime.fromisoformat(day) + timedelta(days=1):%Y-%m-%d}"
    found = run(Cron("*/20 * * * *", zone), f"{day} 00:00", f"{next_day} 00:00", zone)
    assert len(found) == len(set(found)) == 3 * hours + 1


def test_a_day_that_is_far_away() -> None:
    """A fifth Monday in February is found, eighteen years from now."""
    assert Cron("0 0 * 2 mon#5", "UTC").after(ns("2026-03-01")) == ns("2044-02-29")


EXPRESSIONS = [
    "* * * * *", "*/7 * * * *", "15 3 * * *", "30 1,2,3 * * *", "0,30 2 * * *", "0 * * * sun",
    "0 12 1,15 * *", "59 23 * * mon-fri", "*/30 2 * * *",
]  # fmt: skip


@given(
    expression=st.sampled_from(EXPRESSIONS),
    zone=st.sampled_from([BERLIN, NEW_YORK, "UTC", "Asia/Kolkata", "Australia/Lord_Howe"]),
    day=st.sampled_from(["2026-03-08", "2026-03-29", "2026-04-05", "2026-10-25", "2026-11-01"]),
    first=st.integers(0, 30 * 60),
    length=st.integers(1, 8 * 3600),
)
@example("30 1,2,3 * * *", BERLIN, "2026-10-25", 24 * 60, 8 * 3600)
def test_times_are_the_same_from_wherever_one_looks(
    expression: str, zone: str, day: str, first: int, length: int
) -> None:
    """Each time is after the one before, is found from any moment between, and by `newest`."""
    timing = Cron(expression, zone)
    start_ns = ns(f"{day} 00:00") - 12 * HOUR_NS + first * MINUTE_NS
    end_ns = start_ns + length * SECOND_NS
    times, moment_ns = [start_ns], start_ns
    while (moment_ns := timing.after(moment_ns)) <= end_ns and len(times) < 40:
        times.append(moment_ns)
    for before, after in pairwise(times):
        assert before < after
        assert timing.after((before + after) // 2) == after
        assert timing.after(after - 1) == after
    if len(times) < 40:
        assert timing.newest(start_ns, end_ns) == (times[-1] if times[1:] else 0)


# --- what is done ---------------------------------------------------------------------------------


def follow(
    timing: Timing, settled_ns: int, clock: list[int], grace_ns: int = GRACE_NS
) -> list[int]:
    """The times that fire while a clock shows these moments."""
    fired = []
    for now_ns in clock:
        while (verdict := judge(timing, settled_ns, now_ns, grace_ns)).act is not Act.WAIT:
            if verdict.act is Act.FIRE:
                fired.append(verdict.time_ns)
            settled_ns = verdict.time_ns
    return fired


def test_it_waits_for_the_next_time() -> None:
    """A new entry, settled up to now, begins with its next time."""
    now_ns = ns("2026-05-01 10:00") + 1
    assert judge(Every(HOUR_NS), now_ns, now_ns, GRACE_NS) == Verdict(
        Act.WAIT, ns("2026-05-01 11:00")
    )


@pytest.mark.parametrize("timing", [Every(MINUTE_NS), Cron("* * * * *", "UTC")])
def test_of_the_missed_times_the_newest_fires(timing: Timing) -> None:
    """A site that was stopped for an hour does not run sixty tasks, but one."""
    stopped_ns = ns("2026-05-01 10:00")
    fired = follow(timing, stopped_ns, [stopped_ns + HOUR_NS + 5 * SECOND_NS])
    assert fired == [stopped_ns + HOUR_NS]


@pytest.mark.parametrize(
    ("expression", "late_ns", "fires"),
    [("15 3 * * *", GRACE_NS, True), ("15 3 * * *", GRACE_NS + 1, False)],
)
def test_a_missed_time_fires_within_grace(expression: str, late_ns: int, fires: bool) -> None:
    """To the nanosecond; beyond, the entry waits for its next time."""
    timing, due_ns = Cron(expression, "UTC"), ns("2026-05-01 03:15")
    now_ns = due_ns + late_ns
    assert follow(timing, due_ns - HOUR_NS, [now_ns]) == ([due_ns] if fires else [])
    assert judge(timing, now_ns, now_ns, GRACE_NS).time_ns == due_ns + DAY_NS


def test_a_clock_that_is_set_forward() -> None:
    """Is as a site that was stopped: the newest time fires, and then it goes on."""
    start_ns = ns("2026-05-01 10:00")
    clock = [start_ns + n * SECOND_NS for n in range(60)]
    clock += [each + 2 * HOUR_NS for each in clock]
    fired = follow(Every(30 * SECOND_NS), start_ns, clock)
    assert [(each - start_ns) // SECOND_NS for each in fired] == [30, 7200, 7230]


def test_a_clock_that_is_set_back_does_not_fire_a_cron_time_twice() -> None:
    """For up to three hours: what ran at 3:15 does not run again when 3:15 comes again."""
    timing, due_ns = Cron("15 3 * * *", "UTC"), ns("2026-05-01 03:15")
    clock = [due_ns + n * MINUTE_NS for n in range(-20, 2)]
    again = [due_ns + n * MINUTE_NS for n in range(-178, 60)]
    next_day = [due_ns + DAY_NS + n * MINUTE_NS for n in range(-3, 3)]
    assert follow(timing, due_ns - HOUR_NS, clock + again + next_day) == [due_ns, due_ns + DAY_NS]


def test_a_clock_that_was_years_ahead_begins_afresh() -> None:
    """A host that boots with a wrong date does not keep a schedule waiting for that date."""
    timing, wrong_ns, right_ns = Cron("* * * * *", "UTC"), ns("2031-01-01"), ns("2026-05-01 10:00")
    clock = [wrong_ns + n * SECOND_NS for n in range(65)]
    clock += [right_ns + n * SECOND_NS for n in range(65)]
    fired = follow(timing, wrong_ns - HOUR_NS, clock)
    assert fired == [wrong_ns, wrong_ns + MINUTE_NS, right_ns + MINUTE_NS]


@pytest.mark.parametrize("back_s", [1, 3, 20, 29])
def test_a_step_back_of_less_than_a_period(back_s: int) -> None:
    """Fires no time of an interval twice, as small as the correction of a clock is."""
    start_ns = ns("2026-05-01 10:00")
    clock = [start_ns + n * SECOND_NS for n in range(32)]
    clock += [clock[-1] - back_s * SECOND_NS + n * SECOND_NS for n in range(65)]
    fired = follow(Every(30 * SECOND_NS), start_ns - 1, clock)
    assert len(fired) == len(set(fired))
    assert max(after - before for before, after in pairwise(fired)) == 30 * SECOND_NS


def test_an_interval_keeps_its_pace_when_the_clock_is_set_back_by_far() -> None:
    """It does not fall silent for an hour."""
    start_ns = ns("2026-05-01 10:00")
    clock = [start_ns + n * SECOND_NS for n in range(61)]
    clock += [each - HOUR_NS for each in clock]
    fired = follow(Every(30 * SECOND_NS), start_ns - 1, clock)
    assert [(each - start_ns) // SECOND_NS for each in fired] == [0, 30, 60, -3570, -3540]


@given(
    timing=st.sampled_from([Every(SECOND_NS), Every(45 * MINUTE_NS), Cron("*/5 * * * *", BERLIN)]),
    settled_s=st.integers(-40_000, 40_000),
    grace_s=st.integers(1, 3600),
)
def test_a_verdict_always_leads_on(timing: Timing, settled_s: int, grace_s: int) -> None:
    """Whatever was settled, after one or two acts the entry waits, and never for long."""
    now_ns = ns("2026-10-25 01:10") + 123
    settled_ns, grace_ns = now_ns + settled_s * SECOND_NS, grace_s * SECOND_NS
    acts: list[Act] = []
    while (verdict := judge(timing, settled_ns, now_ns, grace_ns)).act is not Act.WAIT:
        acts.append(verdict.act)
        if verdict.act is Act.FIRE:
            assert settled_ns < verdict.time_ns <= now_ns <= verdict.time_ns + grace_ns
        settled_ns = verdict.time_ns
    assert len(acts) <= 1
    assert now_ns < verdict.time_ns <= now_ns + CORRECTION_NS + 2 * HOUR_NS


DIFFERENT: list[Callable[[], Timing]] = [
    lambda: Every(SECOND_NS), lambda: Every(2 * SECOND_NS),
    lambda: Cron("* * * * *", "UTC"), lambda: Cron("* * * * *", BERLIN),
    lambda: Cron("1 * * * *", "UTC"),
]  # fmt: skip


def test_every_timing_has_a_text_of_its_own() -> None:
    """By which a ring sees that an entry's times have changed."""
    assert len({make().text for make in DIFFERENT}) == len(DIFFERENT)
