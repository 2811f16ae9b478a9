"""The head of every report: on what, and with what, the figures were taken."""

import os
import platform
import subprocess
from datetime import UTC, datetime
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

HERE = Path(__file__).resolve().parent


def describe() -> dict[str, str]:
    """Return machine, versions, commit and the load before the first round."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    memory_gib = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30
    return {
        "date": f"{datetime.now(UTC):%Y-%m-%d %H:%M} UTC",
        "machine": f"{processor()}, {cores} cores, {memory_gib:.0f} GiB",
        "system": f"{platform.system()} {platform.release()}",
        "versions": ", ".join(
            [f"Python {platform.python_version()}"]
            + [f"{name} {installed(name)}" for name in ("Django", "posix_ipc")]
        ),
        "commit": commit(),
        "load": load(),
    }


def processor() -> str:
    """Return the model as the kernel names it; /proc/cpuinfo has none on some ARM machines."""
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return platform.machine()
    names = [line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.machine()


def installed(name: str) -> str:
    """Return the version of a distribution, or that it is run from a checkout."""
    try:
        return version(name)
    except PackageNotFoundError:
        return "(not installed)"


def commit() -> str:
    """Return the short hash, marked if files differ from it: nobody can reproduce such figures."""
    git = ["git", "-C", str(HERE)]
    found = subprocess.run([*git, "rev-parse", "--short", "HEAD"], capture_output=True, text=True)
    if found.returncode:
        return "none"
    ours = [*git, "status", "--porcelain", "--", "..", ":(exclude)results", ":(exclude)../docs"]
    changed = subprocess.run(ours, capture_output=True, text=True).stdout.strip()
    return found.stdout.strip() + (" with uncommitted changes" if changed else "")


def load() -> str:
    """Return load averages; on a busy machine the table is worth less, and should say so."""
    return " ".join(f"{value:.2f}" for value in os.getloadavg())
