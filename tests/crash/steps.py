"""SIGKILL at the n-th step that a store operation takes towards the ring.

What a death can leave behind depends only on what was done to the shared objects before it: item
and slice assignments to `Segment.words` and `Segment.bytes`, calls of semaphores and record locks,
and a few calls of `os`. In a forked child all of those are replaced by proxies that count, and that
kill the child when they have counted far enough. The package itself contains nothing for this, so
production pays nothing, and a new write step is counted like the old ones.
"""

import mmap
import os
import signal
import sys
import traceback
from collections.abc import Callable, Collection
from contextlib import suppress
from dataclasses import dataclass
from types import FrameType
from typing import Any, Final

import posix_ipc

from django_tasks_local.ring.format import layout as at
from django_tasks_local.ring.shm import segment
from django_tasks_local.ring.shm.lock import ByteLock

NEVER: Final = 10**9  # a step that no child comes to
COMPLETED: Final = 77
FAILED: Final = 78

# Calls of `os` that change what other processes see; the torn variant of `pwrite` writes half.
OS_CALLS: Final = ("pwrite", "ftruncate", "posix_fallocate", "unlink")
# What no process can do without that goes inside the ring and writes. Where the enumeration misses
# one of these, its patch no longer catches what it is for, and the deaths there are not tried.
INSIDE: Final = ("words", "Semaphore.release", "ByteLock.attempt", "ByteLock.release")
# All that is replaced: test_objects shows that a ring's life takes a step of each kind.
KINDS: Final = (
    *INSIDE,
    "bytes",
    "Semaphore",
    "Semaphore.acquire",
    *(f"os.{name}" for name in OS_CALLS),
)


@dataclass(frozen=True)
class Death:
    """How a child ended.

    Attributes:
        completed: It finished before it came to its step.
        place: What it was about to do when it was killed.
        tearable: Whether that was a write of more than 8 bytes, which could be half done.
    """

    completed: bool
    place: str
    tearable: bool


class Steps:
    """The counter of one child, with a note that survives it."""

    def __init__(self) -> None:
        self._note = mmap.mmap(-1, mmap.PAGESIZE)
        self._hits = memoryview(mmap.mmap(-1, mmap.PAGESIZE)).cast("Q")
        self.kill_at = 0
        self.torn = False
        self.count = 0
        self._armed = False

    def arm(self) -> None:
        """Counts from here on, as if a process waited for the mutex: who leaves it wakes that."""
        for each in segment._segments.values():
            each.words[at.H_QUEUED] = 1
        self._armed = True

    def step(self, what: str, tear: Callable[[], object] | None = None) -> None:
        """Counts one step, before it is taken; kills this process if it is the one."""
        if not self._armed:
            return
        self._hits[KINDS.index(what.partition("[")[0])] += 1
        self.count += 1
        self.reach(what, tear)

    def reach(self, what: str, tear: Callable[[], object] | None) -> None:
        """Comes to a step, and goes no further if it is the one."""
        if self.count != self.kill_at:
            return
        note = f"{'T' if tear else '-'}{self.place_of(what)}".encode()[:4000]
        self._note[: len(note)] = note
        if self.torn and tear:
            tear()
        os.kill(os.getpid(), signal.SIGKILL)

    def place_of(self, what: str) -> str:
        """Where in the package the present step is, in words."""
        return f"{self.count} {what} in {_caller()}"

    def hits(self) -> dict[str, int]:
        """How many steps of each kind the last child took."""
        return dict(zip(KINDS, self._hits, strict=False))

    def run(self, kill_at: int, torn: bool, body: Callable[["Steps"], object]) -> Death:
        """Runs `body` in a forked child that is killed at a step.

        Args:
            kill_at: The step, from 1 on; 0 counts nothing.
            torn: Lets the first half of that step's bytes be written, where it is a long write.
            body: Attaches, calls `arm` and does the operation.
        """
        self._note[:] = bytes(len(self._note))
        self._hits[: len(KINDS)] = memoryview(bytes(8 * len(KINDS))).cast("Q")
        self.kill_at, self.torn, self.count = kill_at, torn, 0
        pid = os.fork()
        if pid == 0:
            _run_child(self, body)
        _, status = os.waitpid(pid, 0)
        note = bytes(self._note).rstrip(b"\0").decode()
        if os.WIFSIGNALED(status):
            assert os.WTERMSIG(status) == signal.SIGKILL, f"child died of {os.WTERMSIG(status)}"
            return Death(False, note[1:], note.startswith("T"))
        code = os.WEXITSTATUS(status)
        assert code == COMPLETED, f"child ended with {code}: {note}"
        return Death(True, "", False)


def kill_everywhere(
    restore: Callable[[], object],
    body: Callable[[Steps], object],
    verify: Callable[[bool], None],
    *,
    hits: Collection[str] = INSIDE,
) -> int:
    """Runs `body` once for each of its steps, and for each long write once more, half done.

    Args:
        restore: Puts the start state back.
        body: See `Steps.run`.
        verify: Told whether the operation was completed.
        hits: Kinds of steps that `body` has to take.

    Returns:
        How many deaths there were.
    """
    steps = Steps()
    deaths = 0
    kill_at = 1
    torn = False
    while True:
        restore()
        death = steps.run(kill_at, torn, body)
        try:
            verify(death.completed)
        except BaseException as error:
            error.add_note(f"killed at step {death.place}, torn={torn}" if death.place else "alive")
            raise
        if death.completed:
            missed = [kind for kind in hits if not steps.hits()[kind]]
            assert not missed, f"no step of {missed} was counted"
            return deaths
        deaths += 1
        torn = death.tearable and not torn
        kill_at += not torn


def in_child(body: Callable[[], object]) -> None:
    """Runs `body` in a forked child that must complete; it dies there without any cleaning up."""
    death = Steps().run(0, False, lambda _: body())
    assert death.completed


def die_in_child(body: Callable[[], object]) -> None:
    """Runs `body` in a forked child, which is killed right after it."""

    def killed(_: Steps) -> None:
        body()
        os.kill(os.getpid(), signal.SIGKILL)

    death = Steps().run(0, False, killed)
    assert not death.completed


def _run_child(steps: Steps, body: Callable[[Steps], object]) -> None:
    code = FAILED
    with suppress(BaseException):
        try:
            if steps.kill_at:
                _count_in_this_process(steps)
            body(steps)
            code = COMPLETED
        except BaseException:
            traceback.print_exc()
            sys.stderr.flush()
    os._exit(code)


# --- the proxies ---------------------------------------------------------------------------


class CountingView:
    """A memoryview whose assignments are steps."""

    def __init__(self, view: memoryview, steps: Steps, name: str) -> None:
        self._view = view
        self._steps = steps
        self._name = name

    def __len__(self) -> int:
        return len(self._view)

    def __getitem__(self, key: Any) -> Any:
        return self._view[key]

    def __setitem__(self, key: Any, value: Any) -> None:
        tear = None
        if isinstance(key, slice):
            start, stop, _ = key.indices(len(self._view))
            if (stop - start) * self._view.itemsize > 8:
                tear = self._tear(start, value)
            what = f"{self._name}[{start}:{stop}] = ..."
        else:
            what = f"{self._name}[{key}] = {value:#x}"
        self._steps.step(what, tear)
        self._view[key] = value

    def _tear(self, start: int, value: Any) -> Callable[[], None]:
        half = memoryview(value)[: len(value) // 2]

        def tear() -> None:
            self._view[start : start + len(half)] = half

        return tear


class CountingSemaphore:
    """A semaphore whose calls are steps, and its opening too."""

    def __init__(self, semaphore: Any, steps: Steps) -> None:
        self._semaphore = semaphore
        self._steps = steps

    def __getattr__(self, name: str) -> Any:
        return getattr(self._semaphore, name)

    def acquire(self, timeout: float | None = None) -> None:
        self._steps.step("Semaphore.acquire")
        self._semaphore.acquire(timeout)

    def release(self) -> None:
        self._steps.step("Semaphore.release")
        self._semaphore.release()


def _count_in_this_process(steps: Steps) -> None:
    """Puts the proxies in the place of what they count, for all that is attached from here on."""
    original_init = segment.Segment.__init__
    original_semaphore = posix_ipc.Semaphore

    def init(self: Any, *args: Any) -> None:
        original_init(self, *args)
        _wrap(self, steps)

    def open_semaphore(*args: Any, **kwargs: Any) -> CountingSemaphore:
        steps.step("Semaphore")
        return CountingSemaphore(original_semaphore(*args, **kwargs), steps)

    segment.Segment.__init__ = init  # type: ignore[method-assign, assignment]
    posix_ipc.Semaphore = open_semaphore
    for each in segment._segments.values():
        _wrap(each, steps)
    original_lock = ByteLock.__init__

    def init_lock(self: Any, *args: Any) -> None:
        original_lock(self, *args)
        # What `acquire` calls too, so that each attempt is one step wherever it is made.
        for name in ("attempt", "release"):
            setattr(self, name, _counted(getattr(self, name), f"ByteLock.{name}", steps))

    ByteLock.__init__ = init_lock  # type: ignore[method-assign, assignment]
    for name in OS_CALLS:
        setattr(os, name, _counted(getattr(os, name), f"os.{name}", steps))


def _wrap(each: Any, steps: Steps) -> None:
    each.words = CountingView(each.words, steps, "words")
    each.bytes = CountingView(each.bytes, steps, "bytes")


def _counted(original: Callable[..., Any], name: str, steps: Steps) -> Callable[..., Any]:
    def counted(*args: Any, **kwargs: Any) -> Any:
        tear = None
        if name == "os.pwrite" and len(args[1]) * memoryview(args[1]).itemsize > 8:
            half = bytes(args[1])[: memoryview(args[1]).nbytes // 2]
            tear = lambda: original(args[0], half, args[2])  # noqa: E731
        steps.step(name, tear)
        return original(*args, **kwargs)

    return counted


def _caller() -> str:
    """The functions of the store that led here, innermost first."""
    names: list[str] = []
    frame: FrameType | None = sys._getframe(1)
    while frame is not None and len(names) < 4:
        path = frame.f_code.co_filename
        if "django_tasks_local" in path:
            names.append(f"{path.rpartition('/')[2]}:{frame.f_lineno} {frame.f_code.co_name}")
        frame = frame.f_back
    return " < ".join(names)
