"""Periodic tasks under real servers: who starts a pool for them, and that each time runs once."""

from pathlib import Path
from typing import Any

import pytest

from tests.process.client import serving
from tests.support import LONG_TIMEOUT, wait_for

TICK = "tests.site.tasks.tick"


def every_second(path: Path, **entry: Any) -> dict[str, Any]:
    """A schedule with one entry, whose runs leave their times in a file."""
    return {"SCHEDULE": {"tick": {"task": TICK, "every": 1, "args": [str(path)], **entry}}}


def times(path: Path) -> list[int]:
    """The times, in Unix seconds, for which it has run so far."""
    if not path.exists():
        return []
    return [int(line.split()[0]) for line in path.read_text().splitlines()]


def wait_for_times(path: Path, count: int) -> list[int]:
    """Wait until there are so many, and return them."""
    wait_for(lambda: len(times(path)) >= count, LONG_TIMEOUT, message=f"{count} times in {path}")
    return times(path)


def assert_once_per_second(found: list[int]) -> None:
    """Each second once, and none left out."""
    assert sorted(found) == list(range(min(found), max(found) + 1))


@pytest.mark.parametrize(
    "site",
    [
        {"workers": 4},
        {"workers": 4, "args": ["--preload"]},
        {"workers": 2, "server": "gevent"},
        {"workers": 1, "threads": 4},
        {"workers": 2, "server": "uvicorn", "app": "tests.site.asgi:application"},
        {"workers": 1, "server": "runserver"},
    ],
    ids=["sync", "preload", "gevent", "gthread", "uvicorn", "runserver"],
)
def test_servers_that_get_no_request(site: dict[str, Any], tmp_path: Path) -> None:
    """One pool starts all the same, and each second runs once on the host."""
    path = tmp_path / "times"
    with serving(options=every_second(path), ready_path=None, **site) as client:
        assert_once_per_second(wait_for_times(path, 4))
        assert len(client.supervisors()) == 1
        assert "Traceback" not in client.site.log()
        assert "DeprecationWarning" not in client.site.log()
