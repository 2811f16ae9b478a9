"""What `local_tasks` says and does about rings in directories.

Others may have rings on this machine. So every look here is narrowed to the test's own.
"""

import io
import json
import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any
from uuid import uuid4

import pytest
from django.core.management import CommandError, call_command
from django.test import override_settings

from django_tasks_local.ring import ring_exists, ring_name, segment_path
from django_tasks_local.ring.shm import neighbours, places
from django_tasks_local.ring.shm.places import base_name, semaphore_name, semaphore_path
from tests import rings as peers
from tests.reboots import RingsOnDisk

PATH = "/srv/site/settings.py"


@pytest.fixture
def rings(
    on_disk: RingsOnDisk, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Iterator[RingsOnDisk]:
    """The ring of the alias ``disk``, in a directory."""
    all_names = places.ring_names
    monkeypatch.setattr(
        neighbours,
        "ring_names",
        lambda at: [name for name in all_names(at) if name.startswith(str(tmp_path))],
    )
    namespace = uuid4().hex
    on_disk.name = ring_name("disk", namespace, str(tmp_path))
    options = {"NAMESPACE": namespace, "DIRECTORY": str(tmp_path), "MAX_WORKERS": 2}
    backend = {"BACKEND": "django_tasks_local.ProcessPoolBackend", "OPTIONS": options}
    with override_settings(TASKS={"disk": backend}):
        yield on_disk


@pytest.fixture
def left(rings: RingsOnDisk) -> Callable[..., None]:
    """Makes the ring in a process that ends."""

    def leave(*functions: Callable[..., Any]) -> None:
        peer = rings.peer(path=PATH)
        for function in functions:
            peer.do(function)
        peer.end()

    return leave


def run(*arguments: str) -> str:
    """What the command prints."""
    out = io.StringIO()
    call_command("local_tasks", *arguments, stdout=out)
    return out.getvalue()


def test_no_ring(rings: RingsOnDisk) -> None:
    """The path says where it was looked for; looking makes none."""
    said = run("status")
    assert segment_path(rings.name) in said
    assert "DIRECTORY" in said
    assert "since the host started" not in said
    assert "there is no ring" in run("check")
    assert "nothing was enqueued in this directory" in run("health")
    assert not ring_exists(rings.name)


def test_a_directory_that_is_refused(rings: RingsOnDisk, tmp_path: Path) -> None:
    """There is no ring, and there will be none: `enqueue` would say the same."""
    tmp_path.chmod(0o777)
    for action in ("status", "check", "list", "health", "destroy"):
        out = io.StringIO()
        with pytest.raises((CommandError, SystemExit)) as caught:
            call_command("local_tasks", action, stdout=out)
        said = out.getvalue() + str(caught.value)
        assert f"{tmp_path}: Refused to use it: others may write to this directory" in said
        assert "set DIRECTORY to that" in said
    tmp_path.chmod(0o700)


def test_status_and_check(rings: RingsOnDisk, left: Callable[..., None]) -> None:
    """As for rings in memory."""
    left(peers.enqueue)
    assert f"ring {rings.name}" in run("status")
    assert "waiting 1" in run("status")


def test_it_is_listed_with_its_directory(
    rings: RingsOnDisk, left: Callable[..., None], tmp_path: Path
) -> None:
    """Those of this project, and others where the command is told to look."""
    left(peers.enqueue)
    lines = run("rings", "--ring", rings.name).splitlines()
    assert lines[0] == f"{base_name(rings.name)}  disk of this project"
    assert lines[1].startswith("  in ")
    assert lines[1].endswith(str(tmp_path)[-40:])
    assert PATH in lines[2]
    assert all(len(line) <= 80 for line in lines)
    facts = json.loads(run("rings", "--json"))[rings.name]
    assert (facts["directory"], facts["unfinished"]) == (str(tmp_path), 1)
    with override_settings(TASKS={}):
        assert rings.name not in run("rings", "--json")
        facts = json.loads(run("rings", "--json", "--directory", str(tmp_path)))[rings.name]
        assert facts["alias"] is None
        for name in (rings.name, segment_path(rings.name)):
            assert base_name(rings.name) in run("rings", "--ring", name)


def test_after_a_restart(rings: RingsOnDisk, left: Callable[..., None]) -> None:
    """Nobody knows yet what is in it: `--purge` leaves it unless it is named."""
    left()
    rings.reboot()
    with override_settings(TASKS={}):
        directory = os.path.dirname(rings.name)
        run("rings", "--purge", "--no-input", "--directory", directory)
        assert ring_exists(rings.name)
        assert "host was restarted" in run("rings", "--ring", rings.name)
        assert "removed" in run("rings", "--purge", "--no-input", "--ring", rings.name)
    assert not ring_exists(rings.name)


def test_purge(rings: RingsOnDisk, left: Callable[..., None], tmp_path: Path) -> None:
    """A ring without unfinished tasks that no alias leads to goes with its semaphores."""
    left()
    with override_settings(TASKS={}):
        said = run("rings", "--purge", "--no-input", "--ring", base_name(rings.name), *where(rings))
    assert "removed" in said
    assert not list(tmp_path.iterdir())
    assert not os.path.exists(semaphore_path(f"{semaphore_name(rings.name)}m"))


def where(rings: RingsOnDisk) -> tuple[str, str]:
    """The option that says where to look."""
    return "--directory", os.path.dirname(rings.name)


def test_destroy(rings: RingsOnDisk, left: Callable[..., None], tmp_path: Path) -> None:
    """Only when nobody is attached, with all of its objects."""
    peer = rings.peer()
    with pytest.raises(CommandError, match="processes are attached"):
        run("destroy", "--no-input")
    peer.end()
    assert "removed" in run("destroy", "--no-input")
    assert not list(tmp_path.iterdir())
