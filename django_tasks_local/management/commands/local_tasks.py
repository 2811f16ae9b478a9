"""``manage.py local_tasks``: look into the rings, cancel tasks, check the rings, remove them."""

import getpass
import json
import os
import time
from contextlib import suppress
from datetime import UTC, datetime
from typing import Any, Final

from django.core.exceptions import ImproperlyConfigured
from django.core.management.base import BaseCommand, CommandError, CommandParser
from django.tasks.exceptions import TaskResultDoesNotExist

from django_tasks_local.backends.process import ProcessPoolBackend
from django_tasks_local.exceptions import StoreUnavailable, counted, listed
from django_tasks_local.pool import project
from django_tasks_local.ring import (
    Look,
    PoolState,
    Ring,
    Role,
    ring_exists,
    ring_is_attached,
    unlink_objects,
    unlink_unattached,
)
from django_tasks_local.store import task_path

from . import _schedule
from ._aliases import add_alias_argument, process_backends

# By number: a damaged entry may have one that is no state.
_STATES: Final = {int(state): state.name.lower() for state in PoolState}


class Command(BaseCommand):
    """Status, audit and removal of the rings of this site, and the end of single tasks."""

    # No check concerns this command, and a check's errors must not prevent a look.
    requires_system_checks = ()
    help = (
        "Show, check or remove the shared memory of ProcessPoolBackend on this host, "
        "or cancel tasks in it."
    )

    def add_arguments(self, parser: CommandParser) -> None:
        actions = parser.add_subparsers(dest="action", required=True, metavar="ACTION")
        status = actions.add_parser("status", help="what waits, runs, is kept and is attached")
        status.add_argument("--json", action="store_true", help="for programs")
        cancel = actions.add_parser("cancel", help="take tasks out, or ask them to stop")
        cancel.add_argument("ids", nargs="+", metavar="ID", help="of the task's result")
        cancel.add_argument("--waiting", action="store_true", help="leave alone what runs")
        schedule = actions.add_parser("schedule", help="periodic tasks: next, last, skipped")
        schedule.add_argument("--run", metavar="NAME", help="enqueue this one now")
        schedule.add_argument("--json", action="store_true", help="for programs")
        check = actions.add_parser("check", help="every broken invariant; exit status 1 if any")
        check.add_argument("--fix", action="store_true", help="keep what is whole, drop the rest")
        destroy = actions.add_parser("destroy", help="remove the ring, with all tasks and results")
        destroy.add_argument("--no-input", action="store_true", help="do not ask")
        destroy.add_argument("--force", action="store_true", help="even if processes are attached")
        for action in (status, cancel, schedule, check, destroy):
            add_alias_argument(action)

    def handle(self, *, action: str, alias: str | None, **options: Any) -> None:
        backends = process_backends(alias)
        try:
            if action == "status":
                self._status(backends, as_json=options["json"])
            elif action == "cancel":
                self._cancel(backends, options["ids"], running=not options["waiting"])
            elif action == "schedule":
                self._schedule(backends, name=options["run"], as_json=options["json"])
            elif action == "check":
                self._check(backends, fix=options["fix"])
            else:
                for backend in backends:
                    self._destroy(backend, ask=not options["no_input"], force=options["force"])
        except (StoreUnavailable, ImproperlyConfigured) as error:
            raise CommandError(str(error)) from error

    def _status(self, backends: list[ProcessPoolBackend], *, as_json: bool) -> None:
        described = {backend.alias: _describe(backend) for backend in backends}
        if as_json:
            self.stdout.write(json.dumps(described, indent=2))
            return
        for alias, facts in described.items():
            self.stdout.write(self.style.MIGRATE_HEADING(alias))
            for line in _lines(facts):
                self.stdout.write(f"  {line}")

    def _cancel(self, backends: list[ProcessPoolBackend], ids: list[str], *, running: bool) -> None:
        unknown = 0
        for result_id in ids:
            for backend in filter(_ring, backends):
                with suppress(TaskResultDoesNotExist):
                    self.stdout.write(f"{result_id}: {_cancelled(backend, result_id, running)}")
                    break
            else:
                unknown += 1
                self.stderr.write(f"{result_id}: there is no such task, or no longer.")
        if unknown:
            raise CommandError(
                f"{counted(unknown, 'id')} unknown to {listed([each.alias for each in backends])}."
            )

    def _schedule(
        self, backends: list[ProcessPoolBackend], *, name: str | None, as_json: bool
    ) -> None:
        if name is not None:
            self.stdout.write(_schedule.run(backends, name))
            return
        described = {backend.alias: _schedule.described(backend) for backend in backends}
        if as_json:
            self.stdout.write(json.dumps(described, indent=2))
            return
        for alias, facts in described.items():
            self.stdout.write(self.style.MIGRATE_HEADING(alias))
            for line in _schedule.lines(facts):
                self.stdout.write(f"  {line}")

    def _check(self, backends: list[ProcessPoolBackend], *, fix: bool) -> None:
        broken = 0
        for backend in backends:
            ring = _ring(backend)
            if ring is None:
                self.stdout.write(f"{backend.alias}: there is no ring, and nothing to check.")
                continue
            problems = ring.upkeep.repair() if fix else ring.upkeep.check()
            for problem in problems:
                self.stdout.write(f"{backend.alias}: {problem}")
            left = ring.upkeep.check() if fix else problems
            broken += len(left)
            if not left:
                self.stdout.write(self.style.SUCCESS(f"{backend.alias}: every invariant holds."))
        if broken:
            raise CommandError("The ring is damaged. `local_tasks check --fix` repairs it.")

    def _destroy(self, backend: ProcessPoolBackend, *, ask: bool, force: bool) -> None:
        name = backend.spec().name
        if not ring_exists(name):
            self.stdout.write(f"{backend.alias}: {_no_ring(name)}")
            return
        if ring_is_attached(name) and not force:
            raise _attached(backend.alias)
        if ask and not _confirmed(backend.alias):
            self.stdout.write("Left as it is.")
            return
        if force:
            unlink_objects(name)
        elif not unlink_unattached(name):  # while the question was being answered
            raise _attached(backend.alias)
        self.stdout.write(f"{backend.alias}: removed.")


def _attached(alias: str) -> CommandError:
    return CommandError(
        f"{alias}: processes are attached (`local_tasks status` lists them). Stop the site first, "
        "or use --force: they go on with a new ring, and what is in this one is out of reach."
    )


def _confirmed(alias: str) -> bool:
    question = f"Remove the ring of {alias!r} with all tasks and results? [y/N] "
    try:
        return input(question).strip().lower() in ("y", "yes")
    except EOFError:
        raise CommandError(
            f"{alias}: nothing was removed. `local_tasks destroy` asks before it removes, and "
            "standard input has no answer; where nobody can be asked, use --no-input."
        ) from None


def _cancelled(backend: ProcessPoolBackend, result_id: str, running: bool) -> str:
    """Cancel a task, and say what that has done.

    Raises:
        TaskResultDoesNotExist: The id is not that of a result in this backend.
    """
    cancelled = backend.cancel(result_id, running=running)
    finished = backend.site().get(result_id).finished_at_ns
    if not cancelled:
        return "had ended." if finished else "runs, and was left alone."
    return "cancelled." if finished else "runs, and was asked to stop."


def _ring(backend: ProcessPoolBackend) -> Ring | None:
    """Return the backend's ring, None where there is none: looking must not make one."""
    return backend.site().ring if ring_exists(backend.spec().name) else None


def _no_ring(name: str) -> str:
    """Return what the absence of a ring may mean, and where the command looked for one."""
    module = project.settings_module() or "none"
    return (
        f"there is no ring /dev/shm{name}s, which is that of user {_user()} with settings module "
        f"{module}. Nothing was enqueued since the host started, or it was removed "
        "(`local_tasks destroy`); or the site runs as another user, in another container, or with "
        "another settings module, SECRET_KEY or NAMESPACE."
    )


def _user() -> str:
    try:
        return getpass.getuser()
    except (KeyError, OSError):  # no such line in /etc/passwd, as in many containers
        return str(os.geteuid())


def _describe(backend: ProcessPoolBackend) -> dict[str, Any]:
    name = backend.spec().name
    look = Look.into(name, backend.alias)
    if look is None:
        return {"ring": None, "looked_for": name}
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
        "lost_workers": counts.lost,
        "reserved_bytes": counts.reserved_bytes,
        "shm_size": counts.segment_bytes,
        "stuck_inside": look.stuck_inside(),
        "attached": [
            {
                "pid": entry.pid,
                "role": entry.role.name.lower(),
                "state": _STATES.get(entry.state) if entry.role is Role.POOL else None,
                "since": datetime.fromtimestamp(entry.since_ns / 1e9, UTC).isoformat(),
            }
            for entry in look.attached()
        ],
    }


def _lines(facts: dict[str, Any]) -> list[str]:
    if facts["ring"] is None:
        return [_no_ring(facts["looked_for"])]
    lines = [
        f"waiting {facts['waiting']:,}   deferred {facts['deferred']:,}   "
        f"running {len(facts['running']):,}   kept results {facts['kept_results']:,}",
        f"evicted so far {facts['evicted']:,}   lost with their worker {facts['lost_workers']:,}",
        f"memory {facts['reserved_bytes'] / 2**20:,.1f} MiB of "
        f"{facts['shm_size'] / 2**20:,.1f} MiB (SHM_SIZE), ring {facts['ring']}",
    ]
    lines += [
        f"running {task['task']} for {task['age_s']:,.1f} s in worker {task['worker_pid']}"
        f"{'' if task['worker_lives'] else ', which has died,'} ({task['id']})"
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
