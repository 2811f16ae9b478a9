"""The fuzzer for twenty seconds; `make fuzz` runs it for as long as one likes."""

import json
import os
import subprocess
import sys

import pytest

from tests.support import ROOT

SECONDS = 20


@pytest.mark.parametrize("seed", [1])
def test_random_kills(seed: int) -> None:
    """Kills, stops, interrupts and forks at random moments break nothing and hang nobody."""
    flags = ["--seconds", str(SECONDS), "--processes", "6", "--seed", str(seed)]
    environ = {key: value for key, value in os.environ.items() if key != "PYTHONPATH"}
    # As a script and from elsewhere, as `make fuzz` and a curious user would run it.
    run = subprocess.run(
        [sys.executable, str(ROOT / "tests/crash/fuzz.py"), *flags],
        env=environ, cwd="/", capture_output=True, text=True, timeout=5 * SECONDS,
    )  # fmt: skip
    assert run.stdout, run.stderr
    summary = json.loads(run.stdout)
    assert summary["violations"] == []
    assert run.returncode == 0
    assert summary["kills"] > 5 * SECONDS
    happened = ("entries", "rebuilds", "lost", "stops", "interrupts", "forks", "retried")
    assert not [what for what in happened if not summary[what]]
