"""An operator at a terminal beside a real site: the commands in processes of their own."""

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

from django_tasks_local.ring import ring_name
from tests.docs.pages import DOCS, blocks
from tests.process.client import Client, environment, fresh_namespace, serving
from tests.process.project import Project
from tests.support import ROOT


def command(namespace: str, *arguments: str, **env: str) -> subprocess.CompletedProcess[str]:
    """What `local_tasks` with these arguments answers."""
    words = [sys.executable, "-m", "django", "local_tasks", *arguments]
    env = os.environ | environment(namespace) | env
    return subprocess.run(words, env=env, cwd=ROOT, capture_output=True, text=True)


def output_that_nobody_reads(namespace: str, *arguments: str) -> tuple[int, str]:
    """Exit status and standard error of a command behind which `head` has ended."""
    read, write = os.pipe()
    os.close(read)
    words = [sys.executable, "-m", "django", "local_tasks", *arguments]
    env = os.environ | environment(namespace)
    env.pop("PYTHONUNBUFFERED", None)  # what is left is written at the end
    with os.fdopen(write, "w") as out:
        done = subprocess.run(
            words, env=env, cwd=ROOT, stdout=out, stderr=subprocess.PIPE, text=True
        )
    return done.returncode, done.stderr


def listed(client: Client, *arguments: str) -> list[dict[str, Any]]:
    """What `list --json` says."""
    answer = command(client.namespace, "list", "--json", *arguments)
    assert answer.returncode == 0, answer.stderr
    return [json.loads(line) for line in answer.stdout.splitlines()]


def test_failed_and_lost_tasks_are_found_from_outside(tmp_path: Path) -> None:
    """Without an id: by status, with the reason in a line; then all of one by its id."""
    project = Project(tmp_path)  # where other tests strand tasks is not its business
    with serving(workers=2) as client:
        client.run("add", 1, 2)
        failed = client.enqueue("add", 1, "two")
        client.error(failed)
        lost = client.enqueue("kill_myself")
        client.error(lost)
        running, worker = client.hold(tmp_path / "gate")

        answer = command(client.namespace, "list", "--status", "failed")
        lines = answer.stdout.splitlines()
        assert [line.split()[-1] for line in lines[1::2]] == [lost, failed]
        assert "default: tests.site.tasks.kill_myself  WorkerLost: Worker process" in lines[2]
        assert "default: tests.site.tasks.add  TypeError: unsupported operand" in lines[4]
        assert max(map(len, lines)) <= 80

        found = listed(client)
        assert [each["id"] for each in found][:3] == [running, lost, failed]
        assert [each["lost"] for each in found][:3] == [False, True, False]
        (now,) = listed(client, "--status", "running")
        assert now["worker_ids"][0].startswith(f"default-{worker}-")

        shown = command(client.namespace, "show", lost).stdout
        assert "status      FAILED  (lost with its worker)" in shown
        assert "was killed by SIGKILL" in shown
        shown = command(client.namespace, "show", failed, "--arguments").stdout
        assert "argument    1\n  argument    'two'\n" in shown
        assert "return a + b" in shown
        assert command(client.namespace, "show", "unknown").returncode == 1

        answer = command(client.namespace, "health", **project.env)
        assert answer.returncode == 0
        assert "fine: default: 0 waiting, 0 deferred, 1 running." in answer.stdout
        status, answer = client.site.get("/health")
        said = answer["aliases"]["default"]["says"]
        assert (status, said) == (200, ["0 waiting, 0 deferred, 1 running."])
        rings = json.loads(command(client.namespace, "rings", "--json").stdout)
        (ring,) = [each for each in rings.values() if each["alias"] == "default"]
        assert {each["role"] for each in ring["attached"]} == {"site", "pool", "worker"}
        (tmp_path / "gate").touch()
        client.value(running)


def test_a_failed_task_is_run_again(tmp_path: Path) -> None:
    """By its id, when what was missing is there; the command does not wait for it beside a site."""
    path = tmp_path / "folder" / "notes"
    with serving(workers=1) as client:
        failed = client.enqueue("note", str(path), "here")
        assert client.error(failed)[0] == "builtins.FileNotFoundError"
        for action in ("list", "health"):
            assert output_that_nobody_reads(client.namespace, action) == (1, "")
        path.parent.mkdir()
        answer = command(client.namespace, "retry", failed)
        assert answer.returncode == 0, answer.stderr
        client.value(answer.stdout.split()[-1].rstrip("."))
        assert path.read_text() == "here\n"
        assert client.status(failed) == "FAILED"


def test_the_healthchecks_of_the_guide() -> None:
    """Docker's lines, as its shell runs them: healthy, and not where something is wrong."""
    page = DOCS / "howto" / "deploy-under-gunicorn.md"
    found = [block.text for block in blocks(page) if block.text.startswith("HEALTHCHECK")]
    by_view, by_command = (text.partition("CMD ")[2] for text in found)
    path = f"{Path(sys.executable).parent}:{os.environ['PATH']}"
    with serving(workers=1) as client:
        by_view = by_view.replace("8000/health/tasks", f"{client.site.port}/health")
        by_command = by_command.replace("manage.py", "-m django")

        def status(line: str, **env: str) -> int:
            env = os.environ | environment(client.namespace) | {"PATH": path} | env
            done = subprocess.run(["sh", "-c", line], env=env, cwd=ROOT, capture_output=True)
            return done.returncode

        assert status(by_view) == 0
        assert status(by_view.replace("/health", "/nothing")) == 1
        assert status(by_command) == 0
        # Only the exit status 2 makes a container unhealthy.
        assert status(by_command.replace("health;", "health --alias nobody;")) == 0
        assert status(by_command, DTL_OPTIONS='{"MAX_WORKERS": 0}') == 1


def test_looking_starts_no_pool(tmp_path: Path) -> None:
    """Where the site has gone and tasks wait: they are shown, health says so, and they wait on."""
    options = {"MAX_WORKERS": 1, "DRAIN_TIMEOUT": 0}
    with fresh_namespace() as namespace:
        with serving(options=options, env={"DTL_NAMESPACE": namespace}) as client:
            client.hold(tmp_path / "gate")
            waiting = client.enqueue("add", 1, 2)
        answer = command(namespace, "list", "--status", "ready")
        assert answer.stdout.splitlines()[1].endswith(waiting)
        answer = command(namespace, "health", "--max-wait", "0")
        assert answer.returncode == 1
        assert f"look at it: default: tests.site.tasks.add ({waiting}) has" in answer.stdout
        assert "no pool runs" in answer.stdout
        # With another NAMESPACE, no alias leads to the ring, and its tasks are stranded.
        name = ring_name("default", namespace)
        answer = command(f"{namespace}-new", "rings", "--json", "--ring", name)
        ring = json.loads(answer.stdout)[name]
        assert (ring["stranded"], ring["unfinished"], ring["attached"]) == (True, 1, [])
        answer = command(f"{namespace}-new", "health")
        assert answer.returncode == 1
        assert f"1 task stranded in {name}" in answer.stdout
        assert client.site.pool_pids() == []
