"""``local_tasks status``: what waits, runs, is kept and is attached."""

import time
from datetime import UTC, datetime
from typing import Any

from django.core.management.base import BaseCommand, CommandParser

from django_tasks_local.backends.process import ProcessPoolBackend
from django_tasks_local.inspection.text import harmless
from django_tasks_local.ring import Look
from django_tasks_local.store import task_path

from ._aliases import looks_into, refuse
from ._facts import print_facts
from ._no_ring import looked_for, sentences


def add_arguments(parser: CommandParser) -> None:
    """Add the options."""
    parser.add_argument("--json", action="store_true", help="for programs")


def run(command: BaseCommand, backends: list[ProcessPoolBackend], **options: Any) -> None:
    """Print how the rings are. It takes no lock, and leaves no trace.

    Raises:
        CommandError: Some rings cannot be used; how the others are is printed all the same.
    """
    looks, problems = looks_into(backends)
    described = {
        backend.alias: _describe(backend, looks.get(backend.alias))
        for backend in backends
        if backend.alias not in problems
    }
    print_facts(command, described, _lines, as_json=options["json"])
    refuse(problems)


def _describe(backend: ProcessPoolBackend, look: Look | None) -> dict[str, Any]:
    if look is None:
        return {"ring": None, **looked_for(backend)}
    counts = look.counts()
    now_ns = time.time_ns()
    return {
        "ring": look.name,
        "waiting": counts.waiting,
        "deferred": counts.deferred,
        "running": [
            {
                "id": task.result_id,
                "task": task_path(task.meta),
                "worker_pid": task.worker_pid,
                "worker_lives": lives,
                "age_s": round((now_ns - task.started_at_ns) / 1e9, 1),
            }
            for task, lives in look.running()
        ],
        "kept_results": counts.kept,
        "evicted": counts.evicted,
        "expired": counts.expired,
        "lost_workers": counts.lost,
        "killed": counts.killed,
        "reserved_bytes": counts.reserved_bytes,
        "shm_size": counts.segment_bytes,
        "stuck_inside": look.stuck_inside(),
        "attached": [
            {
                "pid": entry.pid,
                "role": entry.role.name.lower(),
                "state": entry.pool_state,
                "since": datetime.fromtimestamp(entry.since_ns / 1e9, UTC).isoformat(),
            }
            for entry in look.attached()
        ],
    }


def _lines(facts: dict[str, Any]) -> list[str]:
    if facts["ring"] is None:
        return [sentences(facts)]
    lines = [
        f"waiting {facts['waiting']:,}   deferred {facts['deferred']:,}   "
        f"running {len(facts['running']):,}   kept results {facts['kept_results']:,}",
        f"evicted so far {facts['evicted']:,}   expired {facts['expired']:,}   "
        f"lost with their worker {facts['lost_workers']:,}   killed {facts['killed']:,}",
        f"memory {facts['reserved_bytes'] / 2**20:,.1f} MiB of "
        f"{facts['shm_size'] / 2**20:,.1f} MiB (SHM_SIZE), ring {facts['ring']}",
    ]
    lines += [
        f"running {harmless(task['task'])} for {task['age_s']:,.1f} s in worker "
        f"{task['worker_pid']}{'' if task['worker_lives'] else ', which has died,'} ({task['id']})"
        for task in facts["running"]
    ]
    if facts["stuck_inside"] is not None:
        lines.append(_stuck(facts["stuck_inside"]))
    for entry in facts["attached"]:
        state = f", {entry['state']}" if entry["state"] else ""
        lines.append(f"attached {entry['role']} {entry['pid']}{state} since {entry['since']}")
    return lines


def _stuck(pid: int) -> str:
    who = f"process {pid}" if pid > 0 else "a process in another pid namespace"
    return (
        f"{who} has the lock and does not let go: the others wait for it. If it is stopped, "
        f"continue it (kill -CONT {pid if pid > 0 else 'PID'}) or end it"
    )
