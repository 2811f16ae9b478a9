"""Whole screens of `local_tasks top`, as Textual's own harness draws them, against stored ones.

Where a change is meant, ``DTL_TESTS_RENEW=1 pytest tests/unit/test_top_screens.py`` stores what is
drawn now; look at the difference before you commit it.
"""

import os
import re
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path

import pytest
from textual.pilot import Pilot

from django_tasks_local.ring import Ring
from tests.support import SHORT_TIMEOUT
from tests.unit.test_commands_list import failed, put, succeeded
from tests.unit.test_commands_top import ERROR, SMALL, drive, screen, shows

SCREENS = Path(__file__).parent / "screens"
# What differs from run to run, and what stands for it.
CHANGING = [
    (re.compile(r"[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f-]{22}"), "ID"),
    (re.compile(r"\d{4}-\d\d-\d\d \d\d:\d\d:\d\d"), "DATE AND TIME"),
    (re.compile(r"\d\d:\d\d:\d\d"), "TIME"),
    (re.compile(r" *\d+(?:\.\d+)? (?:µs|ms|s)\b"), " SPAN"),
    (re.compile(r"process-\d+-\d+"), "WORKER"),
]
WIDE = (120, 40)


def in_its_place(name: str, found: re.Match[str]) -> str:
    """A name as wide as what it stands for."""
    return name.ljust(len(found[0]))


def steady(line: str) -> str:
    """A line without what differs from run to run."""
    for pattern, name in CHANGING:
        line = pattern.sub(partial(in_its_place, name), line)
    return line.rstrip()


async def is_as_stored(pilot: Pilot[None], name: str, *texts: str) -> None:
    """Wait until the screen has all texts, and is as the stored one of that name."""
    path = SCREENS / f"{name}-{pilot.app.size.width}x{pilot.app.size.height}.txt"
    await shows(pilot, *texts)
    if os.environ.get("DTL_TESTS_RENEW"):
        await pilot.wait_for_animation()
        path.write_text(drawn(pilot))
        return
    stored, end = path.read_text(), time.monotonic() + SHORT_TIMEOUT
    while drawn(pilot) != stored and time.monotonic() < end:  # a tab's underline moves there
        await pilot.pause(0.01)
    assert drawn(pilot) == stored


def drawn(pilot: Pilot[None]) -> str:
    """The screen without what differs from run to run."""
    return "\n".join(map(steady, screen(pilot))).rstrip() + "\n"


@pytest.mark.parametrize("size", [SMALL, WIDE], ids=["80x24", "120x40"])
def test_screens(site_ring: Callable[[], Ring], size: tuple[int, int]) -> None:
    """Each table, all of a failed task, a question before something is done, and the filter."""
    ring = site_ring()
    succeeded(ring)
    put(ring)
    failed(ring, ERROR)

    async def body(pilot: Pilot[None]) -> None:
        await pilot.press("2")
        await is_as_stored(pilot, "waiting", "PRIO", "tests.tasks.nothing")
        await pilot.press("4")
        await is_as_stored(pilot, "finished", "TOOK", "tests.tasks.nothing")
        await pilot.press("3")
        await is_as_stored(pilot, "failed", "ERROR", "tests.tasks.nothing")
        await pilot.press("enter")
        await is_as_stored(pilot, "details", "[link]x[/]")
        await pilot.press("escape", "R")
        await is_as_stored(pilot, "question", "Enqueue once more: tests.tasks")
        await pilot.press("escape", "slash", *"none")
        await is_as_stored(pilot, "filter", "Nothing has 'none' in it.")

    drive(body, size)
