"""When a periodic task is due: the times of an entry, and what to do about them at a given moment.

Pure functions: the clock is an argument. All moments and spans are Unix ns.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from enum import Enum
from typing import Final, NamedTuple, Protocol
from zoneinfo import ZoneInfo

SECOND_NS: Final = 1_000_000_000
# The year 2262; what a word has room for.
NEVER_NS: Final = 2**63 - 1
# By how much a clock may be set back before that is a correction, and times come again that have
# been. Debian's cron draws the line here, too: beyond summer time, and short of a wrong date.
CORRECTION_NS: Final = 3 * 3600 * SECOND_NS
# Where the search for the newest time of a cron expression begins, and by how much it widens.
FIRST_LOOK_NS: Final = 60 * SECOND_NS
WIDER: Final = 8


class Timing(Protocol):
    """The times of an entry, which are the same for everybody who asks."""

    @property
    def text(self) -> str:
        """What tells it from other timings."""

    @property
    def patience_ns(self) -> int:
        """By how much the clock may be set back before times come again that have been."""

    def after(self, moment_ns: int) -> int:
        """Return the first time after a moment; `NEVER_NS` for none."""

    def newest(self, after_ns: int, now_ns: int) -> int:
        """Return the last time in (after_ns, now_ns]; 0 for none."""


@dataclass(frozen=True, slots=True)
class Every:
    """Times at equal distances, aligned to 1970-01-01 00:00 UTC."""

    period_ns: int

    @property
    def text(self) -> str:
        """As `Timing` has it."""
        return f"every {self.period_ns}"

    @property
    def patience_ns(self) -> int:
        """One period: what counts is the pace."""
        return min(self.period_ns, CORRECTION_NS)

    def after(self, moment_ns: int) -> int:
        """As `Timing` has it."""
        return (moment_ns // self.period_ns + 1) * self.period_ns

    def newest(self, after_ns: int, now_ns: int) -> int:
        """As `Timing` has it."""
        time_ns = now_ns // self.period_ns * self.period_ns
        return time_ns if time_ns > after_ns else 0


@dataclass(frozen=True, slots=True)
class Cron:
    """The times of a cron expression in a time zone, over changes to summer time as in Debian."""

    expression: str
    zone: str

    @property
    def text(self) -> str:
        """As `Timing` has it."""
        return f"cron {self.expression} {self.zone}"

    @property
    def patience_ns(self) -> int:
        """As Debian's cron: what ran at 3:15 does not run again when 3:15 comes again."""
        return CORRECTION_NS

    def after(self, moment_ns: int) -> int:
        """As `Timing` has it."""
        from cronsim import CronSim

        start = datetime.fromtimestamp(moment_ns // SECOND_NS, ZoneInfo(self.zone))
        for moment in CronSim(self.expression, start):
            # In the hour that the clocks go through twice, its first answer may be in the past.
            if (found_ns := int(moment.timestamp()) * SECOND_NS) > moment_ns:
                return found_ns
        return NEVER_NS

    def newest(self, after_ns: int, now_ns: int) -> int:
        """As `Timing` has it."""
        # Forward only: backward, the library has other answers where the clocks change.
        reach_ns = FIRST_LOOK_NS
        while True:
            start_ns = max(after_ns, now_ns - reach_ns)
            found_ns, time_ns = 0, self.after(start_ns)
            while time_ns <= now_ns:
                found_ns, time_ns = time_ns, self.after(time_ns)
            if found_ns or start_ns == after_ns:
                return found_ns
            reach_ns *= WIDER


class Act(Enum):
    """What to do about an entry."""

    WAIT = 1  # until a time comes
    FIRE = 2  # for a time that has come
    SKIP = 3  # times that have come, and are too long ago
    BEGIN = 4  # from now on: the clock was set back by far


class Verdict(NamedTuple):
    """What to do about an entry, and the time that it is about."""

    act: Act
    time_ns: int


def judge(timing: Timing, settled_ns: int, now_ns: int, grace_ns: int) -> Verdict:
    """Return what to do about an entry at a moment.

    Args:
        timing: Its times.
        settled_ns: All of them up to here are settled: they have fired, or never will.
        now_ns: The moment.
        grace_ns: How long ago a time may be that still fires.
    """
    if settled_ns > now_ns + timing.patience_ns:
        return Verdict(Act.BEGIN, now_ns)
    next_ns = timing.after(settled_ns)
    if next_ns > now_ns:
        return Verdict(Act.WAIT, next_ns)
    newest_ns = timing.newest(max(settled_ns, now_ns - grace_ns - 1), now_ns)
    return Verdict(Act.FIRE, newest_ns) if newest_ns else Verdict(Act.SKIP, now_ns)
