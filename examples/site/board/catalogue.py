"""What the page offers: each kind of task, and how much work a given size means for it.

One unit of size is roughly a tenth of a second of one processor core.
"""

from __future__ import annotations

import math
import random
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from board import tasks
from django_tasks_local.typing import Task


@dataclass(frozen=True)
class Kind:
    """One kind of task a visitor can start."""

    slug: str
    title: str
    blurb: str
    task: Task[..., Any]
    arguments: Callable[[int, str], dict[str, Any]]  # size and phrase -> keyword arguments
    unwell: bool = False  # ends badly by design


def _picture(size: int, _phrase: str) -> dict[str, Any]:
    width = round(106 * math.sqrt(size))
    return {
        "width": width,
        "height": round(width * 0.625),
        "place": random.choice(list(tasks.PLACES)),
    }


KINDS = {
    kind.slug: kind
    for kind in (
        Kind(
            "primes",
            "Count primes",
            "A segmented sieve",
            tasks.count_primes,
            lambda size, _: {"limit": size * 8_000_000},
        ),
        Kind(
            "mandelbrot",
            "Draw a fractal",
            "Returns a real PNG",
            tasks.draw_mandelbrot,
            _picture,
        ),
        Kind(
            "pi",
            "Estimate π",
            "Monte Carlo, by points",
            tasks.estimate_pi,
            lambda size, _: {"points": size * 500_000, "seed": random.getrandbits(32)},
        ),
        Kind(
            "search",
            "Search a text",
            "All of Python’s library",
            tasks.search_text,
            lambda size, phrase: {"phrase": phrase, "files": size * 85},
        ),
        Kind(
            "flaky",
            "Fail, then succeed",
            "Tried three times",
            tasks.succeed_at_last,
            lambda size, _: {"limit": size * 300_000},
            unwell=True,
        ),
        Kind(
            "fail",
            "Fail half-way",
            "Raises, with traceback",
            tasks.fail_on_purpose,
            lambda size, _: {"limit": size * 600_000},
            unwell=True,
        ),
        Kind(
            "crash",
            "Kill its worker",
            "SIGKILL; the rest go on",
            tasks.kill_own_worker,
            lambda size, _: {"limit": size * 600_000},
            unwell=True,
        ),
    )
}
KIND_OF_TASK = {kind.task.name: kind.slug for kind in KINDS.values()}
