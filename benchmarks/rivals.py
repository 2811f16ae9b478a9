"""What takes part in `compare.py`, and what has to run beside each."""

import json
import os
import shutil
import socket
import subprocess
import sys
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from actor import HERE, Actor
from harness import wait_until
from project import (
    IMMEDIATE,
    NAMESPACE,
    PROCESS,
    THREAD,
    environment,
    process_pool,
    thread_pool,
)
from venvs import OTHERS, UPSTREAM, Venv

OURS = "ProcessPoolBackend"
OURS_UNLOGGED = "ProcessPoolBackend, django.tasks at WARNING"
OUR_THREADS = "ThreadPoolBackend"
POOL = "multiprocessing.Pool.imap_unordered"
WORKERS = 2


@dataclass
class Rival:
    """One way to run a task, and the processes that belong to it once started."""

    name: str
    module: str  # of contenders
    python: str
    env: dict[str, str]
    needs: str = ""  # a distribution
    daemons: list[list[str]] = field(default_factory=list)
    prepare: list[list[str]] = field(default_factory=list)
    takes_bytes: bool = True  # or only what JSON can hold
    share: float = 1.0  # of the tasks in a burst: slow ones get fewer
    error: str = ""
    running: list[subprocess.Popen[bytes]] = field(default_factory=list)
    actors: list[Actor] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.env = self.env | {"BENCH_RIVAL": self.mark}

    @property
    def mark(self) -> str:
        """What stands in the environment of all its processes."""
        return f"{NAMESPACE} {self.name}."

    def start(self) -> None:
        """Start its workers and two processes that use it; a failure is kept as `error`."""
        if self.error:
            return
        try:
            for command in self.prepare:
                self.launch(command).wait()
            for command in self.daemons:
                self.running.append(self.launch(command))
            self.actors += [Actor(self.env, self.python) for _ in range(2)]
            self.ask("finished")
        except Exception as error:
            self.error = (str(error).strip() or type(error).__name__).splitlines()[-1]

    def launch(self, arguments: list[str]) -> subprocess.Popen[bytes]:
        """Start one process of its environment."""
        quiet = subprocess.DEVNULL
        env = os.environ | self.env
        return subprocess.Popen(
            [self.python, *arguments], env=env, cwd=HERE, stdout=quiet, stderr=quiet
        )

    def ask(self, call: str, reader: bool = False, **arguments: Any) -> Any:
        """Run a function of `contest` in its first process, or in the other one."""
        return self.actors[reader].call(f"contest.{call}", contender=self.module, **arguments)

    def stop(self) -> None:
        """End all its processes."""
        for actor in self.actors:
            actor.close()
        for process in self.running:
            process.terminate()
        for process in self.running:
            try:
                process.wait(timeout=10)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()


class Redis:
    """A throw-away redis-server on a free port, where there is one."""

    def __init__(self, folder: Path) -> None:
        self.error = self.url = ""
        self.process: subprocess.Popen[bytes] | None = None
        server = shutil.which("redis-server") or shutil.which("valkey-server")
        if server is None:
            self.error = "no redis-server or valkey-server on PATH"
            return
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            port = probe.getsockname()[1]
        command = [server, "--port", str(port), "--bind", "127.0.0.1", "--save", ""]
        command += ["--appendonly", "no", "--dir", str(folder)]
        self.process = subprocess.Popen(command, stdout=subprocess.DEVNULL)
        self.url = f"redis://127.0.0.1:{port}/0"

        def answers() -> bool:
            with socket.socket() as probe:
                return probe.connect_ex(("127.0.0.1", port)) == 0

        wait_until(answers, "redis-server")

    def stop(self) -> None:
        """End the server, which keeps nothing."""
        if self.process is not None:
            self.process.terminate()
            self.process.wait()


def all_rivals(folder: Path, redis: Redis) -> list[Rival]:
    """Return all rivals, in the order of the table; those that cannot run carry the reason."""
    upstream, others = Venv("upstream", UPSTREAM), Venv("others", OTHERS)
    options = {"max_workers": WORKERS, "max_results": 10_000}
    theirs = {"MAX_WORKERS": WORKERS, "MAX_RESULTS": 10_000}

    quiet = {"BENCH_TASKS_LOG_LEVEL": "WARNING"}
    rivals = [
        django(OURS, process_pool(**options)),
        django(OURS_UNLOGGED, process_pool(namespace=f"{NAMESPACE}-quiet", **options), env=quiet),
        django(OUR_THREADS, thread_pool(**options)),
        django("ImmediateBackend", {"BACKEND": IMMEDIATE}),
        django(
            "upstream 2.0 ProcessPoolBackend", {"BACKEND": PROCESS, "OPTIONS": theirs}, upstream
        ),
        django("upstream 2.0 ThreadPoolBackend", {"BACKEND": THREAD, "OPTIONS": theirs}, upstream),
        Rival("ProcessPoolExecutor", "executor", sys.executable, environment({})),
        Rival(POOL, "pool_map", sys.executable, environment({})),
        on_database(folder, others),
        on_huey("huey on SQLite", str(folder / "huey.db"), others),
        on_huey("huey on Redis", redis.url, others),
        on_celery(redis.url, others),
        on_rq(redis.url, others),
    ]
    for rival in rivals:
        if redis.error and "Redis" in rival.name:
            rival.error = redis.error
        elif rival.needs in others.missing:
            rival.error = others.missing[rival.needs]
        elif rival.python == upstream.python and upstream.missing:
            rival.error = next(iter(upstream.missing.values()))
    return rivals


def django(name: str, entry: dict[str, Any], venv: Venv | None = None, **more: Any) -> Rival:
    """Use a backend of Django's task framework, by default one of this package."""
    apps = more.pop("apps", [] if venv else ["django_tasks_local"])
    env = environment({"default": entry}, apps) | more.pop("env", {})
    if venv:
        env["PYTHONPATH"] = str(HERE)
    return Rival(name, "django_api", venv.python if venv else sys.executable, env, **more)


def on_database(folder: Path, venv: Venv) -> Rival:
    """Use django-tasks-db with the SQLite settings that Django's documentation advises."""
    pragmas = "PRAGMA journal_mode=WAL; PRAGMA synchronous=NORMAL;"
    database = {
        "ENGINE": "django.db.backends.sqlite3",
        "NAME": str(folder / "tasks.sqlite3"),
        "OPTIONS": {"transaction_mode": "IMMEDIATE", "timeout": 20, "init_command": pragmas},
    }
    return django(
        "django-tasks-db on SQLite",
        {"BACKEND": "django_tasks_db.DatabaseBackend"},
        venv,
        needs="django-tasks-db",
        apps=["django_tasks_db"],
        env={"BENCH_DATABASES": json.dumps({"default": database})},
        prepare=[["-m", "django", "migrate", "--verbosity", "0"]],
        daemons=[["-m", "django", "db_worker", "--no-startup-delay"]] * WORKERS,
        takes_bytes=False,
        share=0.1,
    )


def on_huey(name: str, where: str, venv: Venv) -> Rival:
    """Use huey's consumer with two processes and its own polling intervals."""
    consumer = ["-m", "huey.bin.huey_consumer", "contenders.huey_queue.huey"]
    return Rival(
        name,
        "huey_queue",
        venv.python,
        {"BENCH_BROKER": where, "PYTHONPATH": str(HERE)},
        needs="huey",
        daemons=[[*consumer, "-w", str(WORKERS), "-k", "process"]],
        share=0.25,
    )


def on_celery(url: str, venv: Venv) -> Rival:
    """Use a prefork worker of two processes, without the chatter between workers."""
    worker = ["-m", "celery", "-A", "contenders.celery_app", "worker", "-c", str(WORKERS)]
    return Rival(
        "Celery on Redis",
        "celery_app",
        venv.python,
        {"BENCH_BROKER": url, "PYTHONPATH": str(HERE)},
        needs="celery",
        daemons=[[*worker, "--without-gossip", "--without-mingle", "--loglevel", "ERROR"]],
        takes_bytes=False,
        share=0.25,
    )


def on_rq(url: str, venv: Venv) -> Rival:
    """Use django-tasks-rq; RQ forks for every task."""
    worker = ["-m", "django", "rqworker", "default", "--job-class", "django_tasks_rq.Job"]
    return django(
        "django-tasks-rq on Redis",
        {"BACKEND": "django_tasks_rq.RQBackend"},
        venv,
        needs="django-tasks-rq",
        apps=["django_rq", "django_tasks_rq"],
        env={"BENCH_RQ_QUEUES": json.dumps({"default": {"URL": url}})},
        daemons=[worker] * WORKERS,
        takes_bytes=False,
        share=0.05,
    )
