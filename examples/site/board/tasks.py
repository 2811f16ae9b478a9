"""The tasks of the example: ordinary functions with Django's own decorator.

Nothing in here knows about processes, shared memory or web workers. `track` and `report_progress`
are harmless outside a task, so each function can be called and tested as it is.
"""

from __future__ import annotations

import collections
import logging
import math
import os
import random
import re
import signal
import sysconfig
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from django.tasks import TaskContext

from board import png
from django_tasks_local import fixed, policy, report_progress, track
from django_tasks_local.typing import task  # Django's own, with types for `timedelta` and progress

logger = logging.getLogger(__name__)

SEGMENT = 2**17  # numbers sieved at once: fits the second-level cache of most processors
POINTS_AT_ONCE = 20_000  # often enough for a smooth bar, seldom enough to cost nothing
PLACES = {  # centre and width of the view, and how long to try before a point counts as inside
    "the whole set": (-0.7 + 0j, 3.3, 120),
    "the valley of the seahorses": (-0.7453 + 0.1127j, 0.0065, 320),
    "the spiral at the edge": (-0.761574 - 0.0847596j, 0.0032, 400),
}


@task(backend="cpu_intensive")
def count_primes(limit: int) -> dict[str, int]:
    """Count the primes below `limit` with a segmented sieve of Eratosthenes."""
    small = _primes_up_to(math.isqrt(limit))
    count = largest = 0
    for start in track(range(0, limit, SEGMENT), message=f"sieving {limit:,} numbers"):
        stop = min(start + SEGMENT, limit)
        sieve = bytearray(b"\1") * (stop - start)
        for prime in small:
            first = max(prime * prime, -(-start // prime) * prime) - start
            sieve[first::prime] = bytes(len(range(first, len(sieve), prime)))
        if start == 0:
            sieve[:2] = b"\0\0"
        count += sum(sieve)
        largest = max(largest, start + sieve.rfind(1))
    return {"primes": count, "largest": largest, "below": limit}


def _primes_up_to(limit: int) -> list[int]:
    sieve = bytearray(b"\1") * (limit + 1)
    sieve[:2] = b"\0\0"
    for number in range(2, math.isqrt(limit) + 1):
        if sieve[number]:
            sieve[number * number :: number] = bytes(len(range(number * number, limit + 1, number)))
    return [number for number, is_prime in enumerate(sieve) if is_prime]


@task(backend="cpu_intensive")
def draw_mandelbrot(width: int, height: int, place: str) -> bytes:
    """Draw a piece of the Mandelbrot set and return it as a PNG file.

    The result is plain `bytes`. The process pool hands on whatever can be pickled; it need not be
    JSON.
    """
    centre, view, limit = PLACES[place]
    step = view / width
    left, top = centre.real - view / 2, centre.imag + step * height / 2
    rows = [
        bytes(_escape_colour(complex(left + x * step, top - y * step), limit) for x in range(width))
        for y in track(range(height), message=place)
    ]
    return png.encode(rows, _palette())


def _escape_colour(point: complex, limit: int) -> int:
    z = 0j
    for turn in range(limit):
        z = z * z + point
        if z.real * z.real + z.imag * z.imag > 256:
            # A fraction of a turn instead of a whole one: no stripes between the colours.
            smooth = turn + 1 - math.log2(math.log2(abs(z)))
            return 1 + int(smooth * 5) % 255
    return 0


def _palette() -> list[tuple[int, int, int]]:
    """Return black for the inside, then 255 colours that go round without a seam."""

    def wave(index: int, shift: float) -> int:
        return round(127 + 120 * math.cos(2 * math.pi * (index / 255 + shift)))

    colours = [(wave(i, 0.53), wave(i, 0.42), wave(i, 0.28)) for i in range(255)]
    return [(10, 10, 24), *colours]


@task(backend="cpu_intensive")
def estimate_pi(points: int, seed: int) -> dict[str, float | int]:
    """Throw points at a square, and see how many land inside the quarter circle."""
    throw = random.Random(seed).random
    inside = done = 0
    while done < points:
        batch = min(POINTS_AT_ONCE, points - done)
        inside += sum(throw() ** 2 + throw() ** 2 <= 1 for _ in range(batch))
        done += batch
        report_progress(done, points, f"π ≈ {4 * inside / done:.5f}")
    estimate = 4 * inside / points
    return {"pi": estimate, "error": abs(estimate - math.pi), "points": points}


@task(backend="cpu_intensive")
def search_text(phrase: str, files: int) -> dict[str, Any]:
    """Search Python's standard library for a phrase, and count the words around it."""
    wanted = re.compile(re.escape(phrase), re.IGNORECASE)
    words: collections.Counter[str] = collections.Counter()
    hits = matches_in = 0
    for path in track(list(_library_files(files)), message=f"reading for “{phrase}”"):
        text = path.read_text(encoding="utf-8", errors="replace")
        words.update(word.lower() for word in re.findall(r"[^\W\d_]{4,}", text))
        found = len(wanted.findall(text))
        hits += found
        matches_in += bool(found)
    return {
        "hits": hits,
        "files_with_hits": matches_in,
        "files": files,
        "commonest": [word for word, _ in words.most_common(5)],
    }


def _library_files(count: int) -> Iterator[Path]:
    """Go through the library as often as it takes to read `count` files."""
    library = [
        path
        for path in sorted(Path(sysconfig.get_path("stdlib")).rglob("*.py"))
        if "site-packages" not in path.parts
    ]
    for number in range(count):
        yield library[number % len(library)]


@task(backend="cpu_intensive", takes_context=True)
@policy(max_attempts=3, backoff=fixed(2))
def succeed_at_last(context: TaskContext[..., Any], limit: int) -> dict[str, int]:
    """Fail twice, and succeed in the third attempt, as with a service that is down for a moment."""
    for _ in track(range(limit), message=f"attempt {context.attempt}"):
        pass
    if context.attempt < 3:
        raise ConnectionError(f"Attempt {context.attempt} fails on purpose.")
    return {"attempts": context.attempt}


@task(backend="cpu_intensive")
def fail_on_purpose(limit: int) -> None:
    """Do half of the work, then raise. The page shows the traceback with these very lines."""
    for number in track(range(limit), message="this will not end well"):
        if number * 2 > limit:
            raise ValueError(f"Cannot go on with number {number:,}; this task fails on purpose.")


@task(backend="cpu_intensive")
def kill_own_worker(limit: int) -> None:
    """Do half of the work, then kill the process that runs this task, as an out-of-memory would.

    No `except` and no `finally` runs after SIGKILL. The pool notices, marks this task FAILED with
    `WorkerLost`, starts a new worker, and every other task goes on.
    """
    for number in track(range(limit), message="kill -9 is near"):
        if number * 2 > limit:
            os.kill(os.getpid(), signal.SIGKILL)


@task  # the "default" backend: a thread of the web worker that enqueued it
def write_note(text: str) -> None:
    """Write one line to the log without keeping the visitor waiting for the disk."""
    logger.info("%s", text)
