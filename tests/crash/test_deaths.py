"""The notes of a child that lives on, against children that are killed."""

import tempfile
from collections.abc import Iterator

import pytest

from tests.crash import deaths as module
from tests.crash.deaths import Note, Recorder, deaths
from tests.crash.scene import SMALL, Scene
from tests.crash.states import STATES
from tests.crash.steps import NEVER
from tests.crash.test_points import OPERATIONS, body_of


@pytest.fixture
def scene() -> Iterator[Scene]:
    """A ring of 46 slots."""
    made = Scene(SMALL)
    yield made
    made.close()


def where(note: Note) -> tuple[int, bool, str]:
    """At which step of which function it was taken; ids and times differ from child to child."""
    return note.step, note.torn, note.place.partition(" in ")[2]


@pytest.mark.parametrize(("name", "state"), [("finish_large", "full"), ("settle", "running")])
def test_notes_are_what_deaths_leave(
    scene: Scene, monkeypatch: pytest.MonkeyPatch, name: str, state: str
) -> None:
    """Children killed at each step leave what they noted, as many as one child notes in one go."""
    STATES[state](scene)
    scene.save()
    scene.restore()
    body = body_of(scene, OPERATIONS[name])
    with tempfile.TemporaryFile(buffering=0) as file:
        recorder = Recorder(scene, file)
        recorder.run(NEVER, False, body)
        noted = recorder.notes()
    monkeypatch.setattr(module, "REAL", 1)
    assert [where(note) for note in deaths(scene, body)] == [where(note) for note in noted]


def test_a_note_that_misses_a_write_is_found(scene: Scene, monkeypatch: pytest.MonkeyPatch) -> None:
    """What a killed child leaves is compared with every byte that it noted."""
    STATES["waiting"](scene)
    scene.save()
    note = Recorder._take_note

    def note_and_write(recorder: Recorder, place: str, torn: bool) -> None:
        note(recorder, place, torn)
        scene.ring.segment.bytes[-1] ^= 1

    monkeypatch.setattr(module, "REAL", 1)
    monkeypatch.setattr(Recorder, "_take_note", note_and_write)
    with pytest.raises(AssertionError):
        next(deaths(scene, body_of(scene, OPERATIONS["enqueue"])))
