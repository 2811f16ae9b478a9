"""What the kernel says about the processes of one site (Linux only)."""

import os
from dataclasses import dataclass
from pathlib import Path

POOL = "django_tasks_local.pool"


@dataclass
class Memory:
    """The proportional set size of some processes: shared pages count by their share."""

    private_mib: float = 0.0  # anonymous memory, and files such as the interpreter itself
    shared_mib: float = 0.0  # the ring

    @property
    def pss_mib(self) -> float:
        """The sum over the roles."""
        return self.private_mib + self.shared_mib


def of_site(mark: str) -> dict[str, list[int]]:
    """Return pids by role of all processes whose environment contains `mark`, but this one.

    The roles are `web` and `pool`: a pool and its workers are one command line.
    """
    found: dict[str, list[int]] = {"web": [], "pool": []}
    for folder in Path("/proc").iterdir():
        if not folder.name.isdigit() or int(folder.name) == os.getpid():
            continue
        try:
            if mark.encode() in (folder / "environ").read_bytes():
                role = "pool" if POOL.encode() in (folder / "cmdline").read_bytes() else "web"
                found[role].append(int(folder.name))
        except (PermissionError, FileNotFoundError, ProcessLookupError):
            continue  # somebody else's, or just ended
    return found


class Cpu:
    """The CPU time of all processes of one site or rival, from now on.

    Args:
        mark: What the environment of each of them contains, and of no other process.
    """

    def __init__(self, mark: str) -> None:
        self._mark = mark
        self._before_s = self._now_s()

    def per_task_us(self, tasks: int) -> float:
        """Return what was used since this object was made, divided by `tasks`."""
        return (self._now_s() - self._before_s) / tasks * 1e6

    def _now_s(self) -> float:
        pids = [pid for group in of_site(self._mark).values() for pid in group]
        return cpu_s(pids) + sum(ended_children_s(pid) for pid in pids)


def memory(pids: list[int]) -> Memory:
    """Add up what the processes use."""
    total = Memory()
    for pid in pids:
        lines = Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines()[1:]
        kib = {line.split(":")[0]: int(line.split()[1]) for line in lines}
        total.private_mib += (kib["Pss"] - kib["Pss_Shmem"]) / 1024
        total.shared_mib += kib["Pss_Shmem"] / 1024
    return total


def cpu_s(pids: list[int]) -> float:
    """Return the CPU seconds used so far by all living threads, to the nanosecond."""
    used_ns = 0
    for pid in pids:
        for thread in Path(f"/proc/{pid}/task").glob("*/schedstat"):
            used_ns += int(thread.read_text().split()[0])
    return used_ns / 1e9


def ended_children_s(pid: int) -> float:
    """Return the CPU seconds of a process's children that have ended, in steps of 10 ms."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[13]) + int(fields[14])) / os.sysconf("SC_CLK_TCK")
