"""Rings of a test's own, and other processes that are attached to them."""

import os
import signal
import traceback
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from multiprocessing.connection import Connection, Pipe
from pathlib import Path
from types import SimpleNamespace
from typing import Any, Final, Self
from uuid import uuid4

import pytest

from django_tasks_local.exceptions import StoreUnavailable
from django_tasks_local.ring import Limits, Ring, Role, ring_name, unlink_objects
from django_tasks_local.ring.format import layout as at
from django_tasks_local.ring.shm.objects import segment_path
from tests import support

META: Final = b"tests.tasks:noop"
# 2 workers, 8 results, 12 waiting; two steps of 512-byte slots, and 432 more.
LIMITS: Final = Limits(2, 8, 12, 512, at.COLUMNS_AT + 2 * 1024 * (512 + 57) + 282_672)
# Where a ring's first site finds what it enqueues, as long as no pool has compared its files.
LANE: Final = at.LANES_AT + at.LANE_WORDS
# How an attempt has failed.
ERROR: Final = "app.Busy", "Traceback: busy\n"
# Never due while a test runs.
FAR_NS: Final = 3_600_000_000_000
OTHER_SIZES: Final = replace(LIMITS, slot_size=256)


class Rings:
    """One ring of a test's own: this process's attachments to it, and its end."""

    def __init__(self) -> None:
        self.name = ring_name("unit", uuid4().hex)
        self._peers: list[Peer] = []

    def attach(self, limits: Limits = LIMITS, role: Role = Role.SITE, **kwargs: Any) -> Ring:
        """This process's attachment; in another process use `peer`."""
        return Ring(self.name, "unit", limits, role, **kwargs)

    def peer(self, limits: Limits = LIMITS, role: Role = Role.SITE, **kwargs: Any) -> "Peer":
        """Another process, attached."""
        peer = self.late_peer(limits, role, **kwargs)
        peer.index = peer.result()
        return peer

    def late_peer(self, limits: Limits = LIMITS, role: Role = Role.SITE, **kwargs: Any) -> "Peer":
        """Another process that is about to attach: its first result is its entry's number."""
        peer = Peer(lambda: Ring(self.name, "unit", limits, role, **kwargs))
        self._peers.append(peer)
        return peer

    def close(self) -> None:
        """Ends the peers and removes the ring."""
        for peer in self._peers:
            peer.end()
        unlink_objects(self.name)


class Peer:
    """A forked child that does what it is told, and can be killed.

    What it does are functions of a module; they get a namespace of the child's own, in which
    ``ring`` is its attachment.

    Attributes:
        pid: Its process id.
        index: Its entry in the registry.
    """

    index: int

    def __init__(self, attach: Callable[[], Ring]) -> None:
        ours, theirs = Pipe()
        self._pipe = ours
        self._ended = False
        self._asked = 1  # it answers when it is attached
        self.pid = os.fork()
        if self.pid == 0:
            ours.close()
            try:
                self._serve(theirs, attach)
            finally:
                os._exit(0)
        theirs.close()

    def do(self, function: Callable[..., Any], *args: Any) -> Any:
        """What `function` returns in the child; an exception there is one here."""
        self.start(function, *args)
        return self.result()

    def start(self, function: Callable[..., Any], *args: Any) -> None:
        """Has the child call `function` while this process goes on."""
        self._asked += 1
        self._pipe.send((function, args))

    def result(self) -> Any:
        """Waits for what was started last."""
        assert self._pipe.poll(support.SHORT_TIMEOUT), "the peer does not answer"
        value, error, text = self._pipe.recv()
        self._asked -= 1
        if error is not None:
            error.add_note(text)
            raise error
        return value

    def busy(self, for_s: float = 0) -> bool:
        """Whether what was started has not ended, and does not within so many seconds."""
        return not self._pipe.poll(for_s)

    def signal(self, number: int) -> None:
        """Sends it a signal."""
        os.kill(self.pid, number)

    def stop(self) -> None:
        """Freezes it, and waits until it is frozen."""
        os.kill(self.pid, signal.SIGSTOP)
        os.waitpid(self.pid, os.WUNTRACED)

    def resume(self) -> None:
        """Lets it go on."""
        os.kill(self.pid, signal.SIGCONT)

    def end(self) -> None:
        """Has it end in an orderly way, or kills it if it is busy."""
        if self._ended or self._asked:
            self.kill()
        else:
            self._pipe.send(None)
            assert self.wait() == 0

    def kill(self) -> Self:
        """Kills it, whatever it does, and waits for its end."""
        if not self._ended:
            self._ended = True
            os.kill(self.pid, signal.SIGKILL)
            os.waitpid(self.pid, 0)
            self._pipe.close()
        return self

    def wait(self) -> int:
        """Waits for an end that it comes to by itself; its exit code, or minus the signal."""
        self._ended = True
        _, status = os.waitpid(self.pid, 0)
        self._pipe.close()
        return os.waitstatus_to_exitcode(status)

    @staticmethod
    def _serve(pipe: Connection, attach: Callable[[], Ring]) -> None:
        mine = SimpleNamespace(claims={})

        def answer(function: Callable[[], Any]) -> None:
            value = error = None
            text = ""
            try:
                value = function()
            except BaseException as raised:
                error, text = raised, traceback.format_exc()
            pipe.send((value, error, text))

        def begin() -> int:
            mine.ring = attach()
            index: int = mine.ring.registry.index
            return index

        answer(begin)
        while True:
            order = pipe.recv()
            if order is None:
                return
            function, args = order
            answer(partial(function, mine, *args))


# --- what peers are told to do -----------------------------------------------------------------


def enqueue(mine: Any, arguments: Any = ((), {}), priority: int = 0, due_ns: int = 0) -> str:
    """Enqueues; the result id."""
    result_id: str = put(mine.ring, arguments, priority, due_ns)
    return result_id


def claim(mine: Any) -> str | None:
    """Claims the next task; its result id."""
    taken = mine.ring.claim()
    if taken is None:
        return None
    mine.claims[taken.result_id] = taken
    return str(taken.result_id)


def finish(mine: Any, result_id: str, outcome: Any = None, successful: bool = True) -> int:
    """Finishes what the peer claimed."""
    data = mine.ring.encode(outcome)
    ended: int = mine.ring.finish(mine.claims.pop(result_id), successful=successful, outcome=data)
    return ended


def report(mine: Any, result_id: str, done: float, total: float | None, message: str) -> None:
    """Reports progress of what the peer claimed."""
    mine.claims[result_id].report(done, total, message)


def detach(mine: Any) -> None:
    """Leaves the ring."""
    mine.ring.attachment.detach()


def status_of(mine: Any, result_id: str) -> str:
    """The status of any task."""
    return str(mine.ring.get(result_id).status.name)


# --- what this process does in one line --------------------------------------------------------


def put(ring: Ring, arguments: Any = ((), {}), priority: int = 0, due_ns: int = 0) -> str:
    """Enqueues a task; its result id."""
    result_id, _ = ring.enqueue(META, ring.encode(arguments), priority=priority, due_ns=due_ns)
    return result_id


def tally_of(ring: Ring) -> int:
    """What counts the tasks of the test; looked up again, since a test may put the ring back."""
    return ring.counters.remember(META, "tests.tasks.noop", "default")


def run(ring: Ring, outcome: Any = None, successful: bool = True) -> str:
    """Claims the next task and finishes it; its result id."""
    taken = ring.claim()
    assert taken is not None
    ring.finish(taken, successful=successful, outcome=ring.encode(outcome))
    return taken.result_id


def done(ring: Ring, arguments: Any = ((), {}), outcome: Any = None) -> str:
    """A finished task; its result id."""
    result_id = put(ring, arguments, priority=100)
    assert run(ring, outcome) == result_id
    return result_id


def retry(ring: Ring, error: tuple[str, str] = ERROR, due_ns: int = 0) -> str:
    """Claims the next task, and has it tried again; its result id."""
    claim = ring.claim()
    assert claim is not None
    assert ring.retry(claim, error=error, due_ns=due_ns)
    return claim.result_id


def past_of(ring: Ring, result_id: str) -> Any:
    """What is kept of earlier attempts."""
    return ring.get(result_id).past


def change_limits(ring: Ring, **changes: Any) -> None:
    """From now on other options hold."""
    ring.attachment.set_limits(replace(ring.attachment.limits, **changes))


def exists(ring: Ring, result_id: str) -> bool:
    """Whether a record is there, without using it."""
    slot, high, low = ring_address(result_id)
    word = ring._table.offset(slot) // 8
    return bool(ring._table.state(slot)) and ring.words[word : word + 2].tolist() == [high, low]


def ring_address(result_id: str) -> tuple[int, int, int]:
    """Slot, high and low half of a result id."""
    number = int(result_id.replace("-", ""), 16)
    low = number & (1 << 64) - 1
    return low >> 38 & (1 << 24) - 1, number >> 64, low


# --- the lock ----------------------------------------------------------------------------------


def increment(ring: Ring, times: int) -> None:
    """Adds to a word in two steps that others must not come between."""

    def body() -> None:
        word = ring.words[at.H_EVICTED]
        ring.words[at.H_EVICTED] = word + 1

    for _ in range(times):
        ring._mutex.run(body)


def increment_here(mine: Any, times: int) -> None:
    """The same in a peer."""
    increment(mine.ring, times)


def path_of(rings: Rings) -> Path:
    """Where the segment lies."""
    return Path(segment_path(rings.name))


def refused(rings: Rings) -> StoreUnavailable:
    """The error of an attachment that is refused, which names the file and what to do."""
    with pytest.raises(StoreUnavailable) as caught:
        rings.attach()
    assert caught.value.path
    assert caught.value.fix
    return caught.value


def write_word(rings: Rings, word: int, value: int) -> None:
    """Changes a word of the header behind everybody's back."""
    fd = os.open(path_of(rings), os.O_RDWR)
    os.pwrite(fd, value.to_bytes(8, "little"), word * 8)
    os.close(fd)


def leave_behind(rings: Rings, *functions: Callable[..., Any], limits: Any = LIMITS) -> None:
    """A process attaches, does these things, and is killed."""
    peer = rings.peer(limits)
    for function in functions:
        peer.do(function)
    peer.kill()


# --- descriptors -------------------------------------------------------------------------------


def descriptors_of(path: Path) -> list[int]:
    """This process's descriptors of one file; how many there are of others is not ours to say."""
    found = path.stat()
    numbers = [int(name) for name in os.listdir("/proc/self/fd")]
    return [fd for fd in numbers if (stat := stat_of(fd)) and os.path.samestat(stat, found)]


def stat_of(fd: int) -> os.stat_result | None:
    """What a descriptor stands for, None for a closed one."""
    try:
        return os.fstat(fd)
    except OSError:  # that of the listing itself, closed by now
        return None
