"""The pools that a process has started."""

import os
import subprocess
import sys

import pytest

from django_tasks_local.pool import launcher


def test_ended_pools_are_collected_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """With their status; one that somebody else has waited for counts as ended."""
    monkeypatch.setattr(launcher, "started", {})
    done = subprocess.Popen([sys.executable, "-c", "import sys; sys.exit(3)"])
    lost = subprocess.Popen([sys.executable, "-c", ""])
    os.waitpid(lost.pid, 0)
    launcher.started.update({done.pid: "one", lost.pid: "two"})
    os.waitid(os.P_PID, done.pid, os.WEXITED | os.WNOWAIT)
    for process in (done, lost):
        process.returncode = 0
    assert sorted(launcher.collect_ended_pools()) == sorted(
        [(done.pid, "one", 3), (lost.pid, "two", 0)]
    )
    assert launcher.collect_ended_pools() == []
