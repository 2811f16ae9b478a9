"""`local_tasks rings`: what it tells of each ring of this user, and which it removes.

Others may have rings on this machine. So every look here is narrowed to the test's own.
"""

import io
import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any
from uuid import uuid4

import pytest
from django.core.management import CommandError, call_command
from django.test import override_settings

from django_tasks_local.ring import Ring, Role, ring_exists, ring_name, unlink_unattached
from django_tasks_local.ring.format import layout as at
from django_tasks_local.ring.shm import neighbours, places, segment
from tests import rings as peers
from tests.crash.steps import in_child
from tests.rings import Rings, done, put, write_word
from tests.settings import TASKS

PATH = "/srv/site/settings.py"
MODULE = "site.settings"
PROCESS = "django_tasks_local.ProcessPoolBackend"


@pytest.fixture(autouse=True)
def only_ours(rings: Rings, monkeypatch: pytest.MonkeyPatch) -> set[str]:
    """The names of the rings that there are: by default the test's own one."""
    names = {rings.name}
    all_names = places.ring_names
    monkeypatch.setattr(
        neighbours, "ring_names", lambda *at: [name for name in all_names(*at) if name in names]
    )
    return names


@pytest.fixture
def left(rings: Rings) -> Callable[..., None]:
    """Makes the ring in a process that ends: nobody is attached to it afterwards."""

    def leave(*functions: Callable[..., Any], **kwargs: Any) -> None:
        peer = rings.peer(path=PATH, **kwargs)
        for function in functions:
            peer.do(function)
        peer.end()

    return leave


def run(*arguments: str) -> str:
    """What the command prints."""
    out = io.StringIO()
    call_command("local_tasks", "rings", *arguments, stdout=out)
    return out.getvalue()


def facts(rings: Rings) -> dict[str, Any]:
    """What it tells of the ring for programs."""
    found: dict[str, Any] = json.loads(run("--json"))[rings.name]
    return found


def finish_one(mine: Any) -> None:
    done(mine.ring)


def put_one(mine: Any) -> None:
    put(mine.ring)


def come_from(mine: Any, module: str) -> None:
    """Has it note the settings module of a site that comes."""
    mine.ring.codes.module = module
    mine.ring._mutex.run(mine.ring.codes.note_module)


def stay_inside(mine: Any) -> None:
    """Ends as a process does that is killed in the middle of a change."""
    mine.ring.words[at.H_DIRTY] = 1


def test_no_rings(rings: Rings) -> None:
    """Nothing to see, and nothing to remove."""
    assert run() == "This user has no rings.\n"
    assert run("--json") == "{}\n"
    assert run("--purge", "--no-input") == "There is no ring to remove.\n"
    with pytest.raises(CommandError, match=r"This user has no ring /dtl-0-x\\x1b\."):
        run("--ring", "/dtl-0-x\x1b")


def test_a_ring_in_use(rings: Rings) -> None:
    """Who is attached, what waits, the site's settings file, size and age."""
    first, second = rings.peer(path=PATH), rings.peer(path=f"{PATH}:/srv/site/job.py")
    assert facts(rings)["settings_module"] is None
    for peer, module in ((first, "older"), (second, MODULE)):
        peer.do(come_from, module)
    first.do(finish_one)
    first.do(put_one)
    found = facts(rings)
    assert found["is_attached"]
    assert found["attached"] == [
        {"pid": first.pid, "role": "site"}, {"pid": second.pid, "role": "site"},
    ]  # fmt: skip
    assert found["settings_module"] == MODULE
    assert found["paths"] == [PATH, f"{PATH}:/srv/site/job.py"]
    assert (found["unfinished"], found["running"], found["kept_results"]) == (1, 0, 1)
    assert 0 < found["reserved_bytes"] <= found["size_bytes"]
    assert found["made_at"] <= found["last_attached_at"]
    assert [found[key] for key in ("of_nobody", "stranded", "test_run")] == [False] * 3
    assert (found["alias"], found["problem"]) == (None, None)
    lines = run().splitlines()
    assert lines[:4] == [rings.name, f"  {MODULE}", f"  {PATH}", f"  {PATH}:/srv/site/job.py"]
    assert "  1 waiting, 0 running, 1 kept, " in lines[5]
    assert lines[6:] == ["  attached: 2 sites"]
    assert max(map(len, lines)) <= 80
    assert run("--purge", "--no-input") == "There is no ring to remove.\n"


def test_our_own_ring(rings: Rings) -> None:
    """It is seen without a descriptor of its own, whose end would drop our record locks."""
    ring = rings.attach(path=PATH)
    peer = rings.peer(path=PATH)
    assert facts(rings)["attached"] == [{"pid": peer.pid, "role": "site"}]
    assert peer.do(is_alive, ring.registry.index)


def is_alive(mine: Any, index: int) -> bool:
    """Done by a peer."""
    alive: bool = mine.ring.registry.alive(index)
    return alive


def test_rings_of_nobody_are_removed(rings: Rings, left: Callable[..., None]) -> None:
    """One with kept results, and one of a test run; after a question that tells what is in it."""
    left(finish_one)
    assert facts(rings)["of_nobody"]
    assert "  nobody is attached" in run()
    assert run("--purge", "--no-input").splitlines() == [
        f"{rings.name}: {PATH}: 1 kept, unfinished tasks 0",
        f"{rings.name}: removed.",
    ]
    assert not ring_exists(rings.name)
    left(temporary=True)
    assert f"{rings.name}  of a test run" in run()
    assert "removed" in run("--purge", "--no-input")


@pytest.mark.parametrize(("answer", "stays"), [("y", False), ("no", True)])
def test_it_asks(
    rings: Rings, left: Callable[..., None], monkeypatch: pytest.MonkeyPatch, answer: str,
    stays: bool,
) -> None:  # fmt: skip
    """Only a yes removes anything."""
    left()
    questions: list[str] = []
    monkeypatch.setattr("builtins.input", lambda question: questions.append(question) or answer)
    assert ("Left as they are" in run("--purge")) is stays
    assert questions == ["Remove 1 ring with all tasks and results? [y/N] "]
    assert ring_exists(rings.name) is stays


@pytest.mark.parametrize("what", [put_one, stay_inside])
def test_unfinished_tasks_are_given_up_by_name_only(
    rings: Rings, left: Callable[..., None], what: Callable[..., None]
) -> None:
    """The same where a death has left open whether there are any."""
    left(what)
    assert not facts(rings)["of_nobody"]
    assert run("--purge", "--no-input") == "There is no ring to remove.\n"
    in_child(lambda: outside(lambda: not unlink_unattached(rings.name, idle=True)))
    assert ring_exists(rings.name)
    file = f"/dev/shm{rings.name}s"
    assert "removed" in run("--purge", "--no-input", "--ring", file)
    assert not ring_exists(rings.name)


def outside(check: Callable[[], bool]) -> None:
    """Checks in a process that has no ring open."""
    segment._segments.clear()
    assert check()


def test_a_ring_in_use_is_never_removed(rings: Rings) -> None:
    """Not by name either; nor where somebody attaches while the question waits."""
    peer = rings.peer(path=PATH)
    with pytest.raises(CommandError, match=f"{rings.name}: processes are attached"):
        run("--purge", "--no-input", "--ring", rings.name)
    peer.end()

    def attach(question: str) -> str:
        rings.peer(path=PATH)
        return "y"

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("builtins.input", attach)
        assert "in use by now, and left as it is" in run("--purge")
    assert ring_exists(rings.name)


def test_the_rings_of_this_project_stay(site_ring: Callable[[], Ring], only_ours: set[str]) -> None:
    """Though the site is down: its results are wanted. `destroy` is for them."""
    ring = site_ring()
    only_ours.add(ring.name)
    done(ring)
    ring.attachment.detach()
    assert f"{ring.name}  process of this project" in run()
    assert run("--purge", "--no-input") == "There is no ring to remove.\n"


@pytest.mark.parametrize("tasks", [TASKS, {"process": {"BACKEND": PROCESS, "OPTIONS": {"X": 1}}}])
def test_tasks_under_another_key(
    rings: Rings, left: Callable[..., None], monkeypatch: pytest.MonkeyPatch, tasks: Any
) -> None:
    """A ring of this settings file to which no alias leads is stranded, if tasks wait in it."""
    monkeypatch.setattr("django_tasks_local.pool.project.settings_path", lambda: f"/host{PATH}")
    left(finish_one)
    with override_settings(TASKS=tasks):
        assert not facts(rings)["stranded"]
        left(put_one)
        assert facts(rings)["stranded"]
        lines = run().splitlines()
    assert lines[0] == f"{rings.name}  of this project's settings file"
    assert "STRANDED" in lines[5]
    assert max(map(len, lines)) <= 80
    monkeypatch.setattr("django_tasks_local.pool.project.settings_path", lambda: "/other.py")
    assert not facts(rings)["stranded"]


def test_what_is_no_ring(rings: Rings, only_ours: set[str]) -> None:
    """Another program's file is named and left alone; one never completed is of nobody."""
    path = Path(f"/dev/shm{rings.name}s")
    path.write_bytes(b"x" * 100_000)
    assert facts(rings)["problem"] == "this is not a ring of django-tasks-local"
    assert "  cannot be used: this is not a ring" in run()
    assert run("--purge", "--no-input") == "There is no ring to remove.\n"
    with pytest.raises(CommandError, match="remove the file by hand"):
        run("--purge", "--no-input", "--ring", rings.name)
    path.write_bytes(b"")
    assert facts(rings)["problem"] == "it was never completed"
    assert facts(rings)["of_nobody"]
    assert "removed" in run("--purge", "--no-input")
    other = ring_name("unit", uuid4().hex)
    only_ours.add(other)
    os.mkfifo(f"/dev/shm{other}s")
    try:
        assert json.loads(run("--json"))[other]["problem"] == "it is not a regular file"
    finally:
        os.unlink(f"/dev/shm{other}s")


@pytest.mark.parametrize(("unfinished", "of_nobody"), [(0, True), (2, False)])
def test_another_layout(
    rings: Rings, left: Callable[..., None], unfinished: int, of_nobody: bool
) -> None:
    """It is told by its version, and of nobody if no task in it is unfinished."""
    left()
    write_word(rings, at.H_VERSION, 1)
    write_word(rings, at.H_UNFINISHED, unfinished)
    found = facts(rings)
    assert "its layout is version 1" in found["problem"]
    assert (found["unfinished"], found["of_nobody"]) == (unfinished, of_nobody)


def test_a_damaged_header(rings: Rings, left: Callable[..., None]) -> None:
    """Nobody knows what is in it: it goes by name only."""
    left()
    write_word(rings, at.H_SLOTS, 77)
    found = facts(rings)
    assert found["problem"] == "its header is damaged"
    assert (found["unfinished"], found["of_nobody"]) == (None, False)
    assert "removed" in run("--purge", "--no-input", "--ring", rings.name[1:])


def test_another_users_file(
    rings: Rings, left: Callable[..., None], monkeypatch: pytest.MonkeyPatch
) -> None:
    """It is named, and not opened."""
    left()
    uid = os.geteuid()
    monkeypatch.setattr(neighbours, "ring_names", lambda *_: [rings.name])
    monkeypatch.setattr("os.geteuid", lambda: uid + 1)
    (found,) = neighbours.survey_rings()
    assert found.problem == f"it belongs to uid {uid}"
    assert not found.is_ours


def test_a_ring_of_readers(rings: Rings) -> None:
    """Where no site has attached yet, the readers' settings file says whose it is."""
    reader = rings.peer(role=Role.VISITOR, path=PATH)
    assert facts(rings)["paths"] == [PATH]
    assert facts(rings)["attached"] == [{"pid": reader.pid, "role": "visitor"}]
    assert peers.path_of(rings).exists()
