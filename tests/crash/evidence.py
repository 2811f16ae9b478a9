"""What a process of the fuzzer can see of another one that should not be inside with it."""

import os
from pathlib import Path

from django_tasks_local.ring.shm.lock import GUARD, ByteLock
from django_tasks_local.ring.shm.segment import Segment
from tests.crash.ledger import INSIDE, PID, Ledger


def evidence(ledger: Ledger, segment: Segment | None, place: int, other: int) -> str:
    """Who both are, where their threads are, and whose record locks there are: one line.

    Args:
        ledger: Who lives where.
        segment: What this process is inside of.
        place: Where it lives itself.
        other: Where the other one lives.
    """
    pid, thread = ledger.field(other, PID), ledger.field(other, INSIDE)
    facts = [f"pid {os.getpid()} lives at place {place}, pid {pid} with thread {thread} at {other}"]
    if segment is not None:
        guard = ByteLock(segment.fd, GUARD).holder()
        facts.append(f"the ring is {segment.inode}, its guard is held by {guard} (None: by us)")
        facts.append(f"locks on it: {_locks(segment.inode)}")
    for each in (pid, os.getpid()):
        facts += [f"thread {number} of {each}: {state}" for number, state in _threads(each)]
        facts.append(f"open in {each}: {_descriptors(each)}")
    return "; ".join(facts)


def _locks(inode: int) -> list[str]:
    lines = Path("/proc/locks").read_text().splitlines()
    return [" ".join(line.split()[4:]) for line in lines if f":{inode} " in line]


def _threads(pid: int) -> list[tuple[int, str]]:
    found = []
    for number in sorted(map(int, _names(f"/proc/{pid}/task"))):
        folder = Path(f"/proc/{pid}/task/{number}")
        try:
            state = (folder / "stat").read_text().rpartition(")")[2].split()[0]
            found.append((number, f"{state} in {(folder / 'wchan').read_text() or 'no call'}"))
        except OSError:  # it has ended
            continue
    return found


def _descriptors(pid: int) -> list[str]:
    found = []
    for number in sorted(map(int, _names(f"/proc/{pid}/fd"))):
        try:
            found.append(f"{number} {os.readlink(f'/proc/{pid}/fd/{number}')}")
        except OSError:  # that of the listing itself, closed by now
            continue
    return found


def _names(folder: str) -> list[str]:
    try:
        return os.listdir(folder)
    except OSError:  # the process has ended
        return []
