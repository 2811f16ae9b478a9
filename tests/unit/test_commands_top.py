"""`local_tasks top`: what its screen shows, in Textual's own harness, and what its keys do."""

import asyncio
import sys
import time
from collections.abc import Awaitable, Callable
from datetime import timedelta
from typing import Any

import pytest
from django.core.management import CommandError, call_command
from django.tasks import task_backends
from django.test import override_settings
from textual.pilot import Pilot

from django_tasks_local.exceptions import StoreUnavailable
from django_tasks_local.management.commands import _top_app
from django_tasks_local.management.commands._top_app import Top
from django_tasks_local.management.commands._top_tables import ROWS, Line, Tab, Tables
from django_tasks_local.ring import Look, Loss, Ring, Role, loss_word
from django_tasks_local.ring.format import layout as at
from django_tasks_local.store import time_limit_word
from tests import rings as peers
from tests.rings import Peer
from tests.support import SHORT_TIMEOUT, shm_objects
from tests.unit.test_commands_list import failed, put, succeeded

type Body = Callable[[Pilot[None]], Awaitable[None]]

META = b"tests.tasks:nothing"
SMALL = (80, 24)
EVIL = "\x1b[2J[red]no[/red] [bold \u202e<b>"
ERROR = ("builtins.ValueError", f"Traceback:\n  [link]x[/]\nValueError: {EVIL}\n")


@pytest.fixture(autouse=True)
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    """It looks again at once."""
    monkeypatch.setattr(_top_app, "TICK_S", 0.02)
    monkeypatch.setattr(_top_app, "SHARE", 1.0)


def drive(body: Body, size: tuple[int, int] = SMALL) -> None:
    """Run the application on a screen of that size, and the test's part beside it."""

    async def run() -> None:
        names = [name for name in task_backends if name.startswith("process")]
        app = Top(Tables([task_backends[name] for name in names]))  # type: ignore[misc]
        async with app.run_test(size=size, notifications=True) as pilot:
            await body(pilot)

    asyncio.run(run())


def screen(pilot: Pilot[None]) -> list[str]:
    """What the screen shows, line by line."""
    strips = pilot.app.screen._compositor.render_strips()
    return ["".join(segment.text for segment in strip).rstrip() for strip in strips]


async def shows(pilot: Pilot[None], *texts: str) -> list[str]:
    """Wait until all texts are on the screen, and return its lines."""
    end = time.monotonic() + SHORT_TIMEOUT
    while not all(text in "\n".join(screen(pilot)) for text in texts):
        assert time.monotonic() < end, "\n".join([f"no {texts} in:", *screen(pilot)])
        await pilot.pause(0.01)
    return screen(pilot)


def test_every_table_fits_the_smallest_terminal(site_ring: Callable[[], Ring]) -> None:
    """What runs with its limit and memory, what waits, failures, results; nothing is too wide."""
    ring = site_ring()
    failed(ring, ERROR)
    succeeded(ring)
    limit = time_limit_word(30, 5)
    arguments = ring.encode(((), {}))
    running, _ = ring.enqueue(META, arguments, priority=0, due_ns=0, time_limit=limit)
    worker = Peer(lambda: Ring(ring.name, "process", ring.attachment.limits, Role.WORKER))
    worker.index = worker.result()
    assert worker.do(peers.claim) == running
    worker.do(peers.report, running, 1, 4, EVIL)
    put(ring)

    async def body(pilot: Pilot[None]) -> None:
        lines = await shows(pilot, "25% \\x1b[2J[", "q Quit")
        assert lines[0] == " process: no pool, workers 1, sites 1, lost 0, killed 0"
        assert lines[1] == " 1 Running 1  2 Waiting 1  3 Failed 1  4 Finished 1  5 Schedule 0"
        assert lines[3].split() == ["TASK", "FOR", "LIMIT", "PID", "MEMORY", "PROGRESS"]
        for text in ("tests.tasks.nothing", "30.0 s", f" {worker.pid} ", " MiB "):
            assert text in lines[4]
        assert lines[-1] == "enter Details / Filter C Cancel task R Retry task q Quit"
        await pilot.press("2")
        lines = await shows(pilot, "PRIO")
        assert (lines[4].split()[0], lines[4].split()[-1]) == ("tests.tasks.nothing", "0")
        await pilot.press("right")
        lines = await shows(pilot, "ERROR")
        assert "ValueError: \\x1b[2J[red]no[/red]" in lines[4]
        await pilot.press("right")
        assert "tests.tasks.nothing" in (await shows(pilot, "TOOK"))[4]
        await pilot.press("5")
        await shows(pilot, "There is no SCHEDULE.")
        assert all(len(line) <= SMALL[0] for line in lines)

    drive(body)
    worker.kill()
    ring.upkeep.settle(worker.index, loss_word(Loss.SIGNAL, 9))


def test_all_of_one_task(site_ring: Callable[[], Ring]) -> None:
    """Its traceback as it is, without markup; its arguments when they are asked for; it follows."""
    ring = site_ring()
    failed(ring, ERROR)
    put(ring, arguments=(("secret",), {}))
    claim = ring.claim()
    assert claim is not None

    async def body(pilot: Pilot[None]) -> None:
        await shows(pilot, "tests.tasks.nothing")
        await pilot.press("enter")
        lines = await shows(pilot, "not shown; a shows them")
        assert not any("secret" in line for line in lines)
        claim.report(3, 10, "half [b]way")
        await shows(pilot, "progress    3 of 10  half [b]way")
        await pilot.press("a")
        await shows(pilot, "argument    'secret'")
        await pilot.press("escape", "3", "enter")
        lines = await shows(pilot, "[link]x[/]")
        assert any(r"ValueError: \x1b[2J[red]no[/red] [bold \u202e<b>" in line for line in lines)
        await pilot.press("q")  # back, and not out
        await shows(pilot, "ERROR")

    drive(body)
    ring.finish(claim, successful=True, outcome=ring.encode(None))


def test_an_error_of_many_megabytes(site_ring: Callable[[], Ring]) -> None:
    """It shows where it came from and how it ends: the keys would wait for more."""
    text = "Traceback:\n  x\n" + "ValueError: no\n" * 2**17
    result_id = failed(site_ring(), (ERROR[0], text))
    tables = Tables([task_backends["process"]])  # type: ignore[list-item]
    shown = tables.details(Line("", "process", result_id, ()), arguments=False)
    assert len(shown) < 70_000
    assert "Traceback:\n      x\n" in shown
    assert "\n      [...]\n" in shown
    assert shown.endswith("ValueError: no")


def test_a_filter(site_ring: Callable[[], Ring]) -> None:
    """By a part of any text or of an id, also among rows that were too many."""
    ring = site_ring()
    ring.attachment.set_limits(ring.attachment.limits)
    first = failed(ring, ("builtins.KeyError", "KeyError: 'needle'\n"))
    for _ in range(ROWS):
        failed(ring, ("builtins.ValueError", "ValueError: other\n"))

    async def body(pilot: Pilot[None]) -> None:
        await shows(pilot, "Failed 201")
        await pilot.press("3")
        lines = await shows(pilot, f"The first {ROWS} rows; a filter finds others.")
        assert not any("needle" in line for line in lines)
        await pilot.press("slash", *"NEEDLE")
        lines = await shows(pilot, "KeyError: 'needle'")
        assert not any("other" in line for line in lines)
        await pilot.press("enter", "enter")  # the first one leaves the field
        await shows(pilot, first, "builtins.KeyError")
        await pilot.press("escape", "slash", *"[zz")
        await shows(pilot, "Nothing has '[zz' in it.")
        await pilot.press("escape")
        await shows(pilot, "ValueError: other")

    drive(body)


def test_what_is_cancelled(site_ring: Callable[[], Ring]) -> None:
    """After a question that only ``y`` answers with yes; small letters do nothing."""
    ring = site_ring()
    waiting = put(ring)

    async def body(pilot: Pilot[None]) -> None:
        await shows(pilot, "2 Waiting 1")
        await pilot.press("2")
        await shows(pilot, "tests.tasks.nothing")
        for keys in (["c"], ["C", "n"], ["C", "enter"], ["C", "escape"]):
            await pilot.press(*keys)
            await shows(pilot, "SINCE")
            assert ring.get(waiting).status.name == "READY"
        await pilot.press("C")
        await shows(pilot, "Cancel: tests.tasks.nothing?", waiting)
        await pilot.press("y")
        await shows(pilot, "2 Waiting 0", "3 Failed 1")
        assert ring.get(waiting).cancelled

    drive(body)


def test_nothing_can_run_what_is_retried(site_ring: Callable[[], Ring]) -> None:
    """Without a site: it says so, and starts no pool."""
    ring = site_ring()
    failed(ring, ERROR)
    ring.attachment.detach()

    async def body(pilot: Pilot[None]) -> None:
        await shows(pilot, "3 Failed 1")
        await pilot.press("R")
        await shows(pilot, "Enqueue once more: not possible here.")
        await pilot.press("3")
        await shows(pilot, "ERROR")
        await pilot.press("R")
        await shows(pilot, "Enqueue once more: tests.tasks.nothing?")
        await pilot.press("y")
        await shows(pilot, "No process of the site is there to have it run.")

    drive(body)


def test_looking_leaves_no_trace(site_ring: Callable[[], Ring]) -> None:
    """No word of the ring changes, the order of use included; nobody is attached."""
    ring = site_ring()
    failed(ring, ERROR)
    succeeded(ring)
    put(ring)
    before = bytes(ring.segment.bytes)

    async def body(pilot: Pilot[None]) -> None:
        for key in ("2", "3", "4", "5", "1"):
            await pilot.press(key)
            await pilot.pause(0.05)
        await pilot.press("4")
        await shows(pilot, "TOOK")
        await pilot.press("enter")
        await shows(pilot, "SUCCESSFUL")

    drive(body)
    assert bytes(ring.segment.bytes) == before


def test_drawing_counts(site_ring: Callable[[], Ring], monkeypatch: pytest.MonkeyPatch) -> None:
    """Where not reading but drawing takes long, it looks less often, too; a key is not kept."""
    ring = site_ring()
    failed(ring, ERROR)
    real = Tables.picture
    monkeypatch.setattr(Top, "_read", lambda app, *args: (real(app._tables, *args), 0.0))
    monkeypatch.setattr(_top_app, "SHARE", 1e-9)

    async def body(pilot: Pilot[None]) -> None:
        app: Any = pilot.app
        await shows(pilot, "3 Failed 1")
        end = time.monotonic() + SHORT_TIMEOUT
        while app._look_after - app._looked < _top_app.LONGEST_PAUSE_S:
            assert time.monotonic() < end
            await pilot.pause(0.01)
        await pilot.press("3")
        await shows(pilot, "ERROR")

    drive(body)


def test_several_aliases_and_no_ring(site_ring: Callable[[], Ring]) -> None:
    """Each row names its alias, and each ring that is missing has a line; none is made."""
    ring = site_ring()
    put(ring)
    backend: Any = task_backends["process"]
    backends = {
        name: {
            "BACKEND": "django_tasks_local.ProcessPoolBackend",
            "OPTIONS": {"NAMESPACE": backend.options["NAMESPACE"], "SCHEDULE": schedule},
        }
        for name, schedule in (
            ("process", {}),
            ("process-2", {"hourly": {"task": "tests.tasks.add", "every": timedelta(hours=1)}}),
        )
    }

    async def body(pilot: Pilot[None]) -> None:
        await shows(pilot, "process: no pool", "process-2: there is no ring", "5 Schedule 1")
        await pilot.press("2")
        await shows(pilot, "process: tests.tasks.nothing")
        await pilot.press("5")
        await shows(pilot, "process-2: hourly", "every 3600 s")

    with override_settings(TASKS=backends):
        drive(body, (120, 30))
        name = task_backends["process-2"].spec().name  # type: ignore[attr-defined]
        assert not [each for each in shm_objects() if name[1:] in each]


def test_a_ring_that_is_damaged(
    site_ring: Callable[[], Ring], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nothing ends the view: a state that is none is shown as such, and what fails is said."""
    ring, tables = site_ring(), Tables([task_backends["process"]])  # type: ignore[list-item]
    ring.attachment.become(Role.POOL)
    ring.registry.set_field(at.E_STATE, 77)
    assert tables.picture(Tab.RUNNING).heads[0].startswith("process: pool damaged, workers 0")

    def refused(*_: object) -> None:
        raise StoreUnavailable("it is damaged", path="/dev/shm/x")

    monkeypatch.setattr(Look, "into", refused)
    heads = tables.picture(Tab.FAILED).heads
    assert heads == ["process: /dev/shm/x: It is damaged."]
    assert tables.retry(Line("", "process", "", ())) == "/dev/shm/x: It is damaged."


def test_what_it_needs(monkeypatch: pytest.MonkeyPatch, site_ring: Callable[[], Ring]) -> None:
    """A terminal, and a package that an extra installs; a sentence says which."""
    with pytest.raises(CommandError, match="needs a terminal"):
        call_command("local_tasks", "top")
    module = "django_tasks_local.management.commands._top_app"
    monkeypatch.delitem(sys.modules, module)
    for name in [name for name in sys.modules if name.partition(".")[0] == "textual"]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, "textual", None)
    with pytest.raises(CommandError, match=r'pip install "django-tasks-local\[top\]"'):
        call_command("local_tasks", "top")
