"""What a death at each step leaves behind, as one child notes it that lives to the end.

SIGKILL lets a process do nothing more: the kernel keeps the shared memory and the values of the
semaphores as they are, and drops the process's record locks. So one child that notes at each of its
steps what there is, and then ends, tells what a killed child for each step would have left.

That this is so is not taken on trust. At one step in `REAL` a child is killed after all: what it
left must be what it had noted there, and is what is judged. ``DTL_TESTS_REAL=1`` kills one at each.
"""

import os
import pickle
import signal
import tempfile
from collections.abc import Callable, Collection, Iterator
from dataclasses import dataclass
from typing import IO, Final

from django_tasks_local.ring.shm import segment
from tests.crash.scene import Scene
from tests.crash.steps import INSIDE, NEVER, Death, Steps

REAL: Final = int(os.environ.get("DTL_TESTS_REAL") or 8)
PIECE: Final = 4096


@dataclass(frozen=True)
class Note:
    """What there was when a child came to a step.

    Attributes:
        step: Its number, from 1 on.
        place: What the child was about to do; "" where it had completed.
        torn: Whether half of that was done: it was a long write.
        pieces: The pieces of the segment that are not as in the note before, by their offsets.
        semaphores: The values of those that the child had open, by their letters.
    """

    step: int
    place: str
    torn: bool
    pieces: dict[int, bytes]
    semaphores: dict[str, int]

    @property
    def completed(self) -> bool:
        """Whether the child had come to its end."""
        return not self.place


class Recorder(Steps):
    """The counter of a child that notes what there is: at all of its steps, or at its last one.

    Args:
        scene: The ring.
        file: For the notes; unbuffered, since children are killed.

    Attributes:
        before: Every byte of the segment when the last child was born.
    """

    def __init__(self, scene: Scene, file: IO[bytes]) -> None:
        super().__init__()
        # This process's own: in a child, those of the segment are proxies.
        self._memory = scene.ring.segment.bytes
        self._file = file
        self.before = self._last = b""

    def run(self, kill_at: int, torn: bool, body: Callable[[Steps], object]) -> Death:
        """Do as `Steps`; `notes` has then what the child noted."""
        self._file.seek(0)
        self._file.truncate()
        self.before = self._last = bytes(self._memory)

        def noting(steps: Steps) -> None:
            body(steps)
            self._take_note("", False)

        return super().run(kill_at, torn, noting)

    def notes(self) -> list[Note]:
        """What the last child noted."""
        self._file.seek(0)
        notes = []
        while self._file.tell() < os.fstat(self._file.fileno()).st_size:
            notes.append(pickle.load(self._file))
        return notes

    def reach(self, what: str, tear: Callable[[], object] | None) -> None:
        """Takes notes, and goes no further if it is the step to die at."""
        dies = self.count == self.kill_at
        if not dies and self.kill_at != NEVER:
            return
        place = self.place_of(what)
        if not (dies and self.torn):
            self._take_note(place, False)
        if tear and (self.torn or not dies):
            tear()
            self._take_note(place, True)
        if dies:
            os.kill(os.getpid(), signal.SIGKILL)

    def _take_note(self, place: str, torn: bool) -> None:
        now, last = bytes(self._memory), self._last
        pieces = {
            at: now[at : at + PIECE]
            for at in range(0, len(now) * (now != last), PIECE)
            if now[at : at + PIECE] != last[at : at + PIECE]
        }
        values = {
            letters: semaphore.value
            for each in segment._segments.values()
            for letters, semaphore in each.semaphores.items()
        }
        self._last = now
        self._file.write(pickle.dumps(Note(self.count, place, torn, pieces, values)))


def deaths(
    scene: Scene, body: Callable[[Steps], object], *, hits: Collection[str] = INSIDE
) -> Iterator[Note]:
    """Puts the scene into the state that a death leaves at each step of `body`, one by one.

    At each long write there are two: before it, and half way. A state that is the same as the one
    before it does not come again. The last one is that after a completed operation.

    Args:
        scene: Its saved state is the one that `body` starts from.
        body: See `Steps.run`.
        hits: Kinds of steps that `body` has to take.
    """
    scene.restore()
    with tempfile.TemporaryFile(buffering=0) as file:
        recorder = Recorder(scene, file)
        assert recorder.run(NEVER, False, body).completed
        missed = [kind for kind in hits if not recorder.hits()[kind]]
        assert not missed, f"no step of {missed} was counted"
        content = bytearray(recorder.before)
        semaphores: dict[str, int] = {}
        notes = recorder.notes()
        every = min(REAL, notes[-1].step)
        for note in notes:
            _apply(note, content)
            changed = note.pieces or note.semaphores != semaphores
            semaphores = note.semaphores
            if note.step % every == len(notes) % every and not note.completed:
                yield _really(scene, recorder, note, body)
            elif changed or note.completed:
                scene.put_in_place(content, semaphores)
                yield note


def _really(scene: Scene, recorder: Recorder, note: Note, body: Callable[[Steps], object]) -> Note:
    """Kills a child at the step of a note; what it leaves must be what it noted there itself."""
    scene.restore()
    death = recorder.run(note.step, note.torn, body)
    (noted,) = recorder.notes()
    assert death.completed == noted.completed
    content = bytearray(recorder.before)
    _apply(noted, content)
    assert content == scene.ring.segment.bytes
    assert noted.semaphores == {each: scene.wake_ups(each) for each in noted.semaphores}
    return noted


def _apply(note: Note, content: bytearray) -> None:
    for at, piece in note.pieces.items():
        content[at : at + PIECE] = piece


def die_everywhere(
    scene: Scene,
    body: Callable[[Steps], object],
    verify: Callable[[bool], object],
    *,
    hits: Collection[str] = INSIDE,
) -> int:
    """Has `verify` judge what a death leaves at each step of `body`: see `deaths`.

    Args:
        scene: See `deaths`, as for the others.
        body: What is done.
        verify: Told whether it was completed.
        hits: Kinds of steps that it takes.

    Returns:
        How many deaths there were.
    """
    count = 0
    for death in deaths(scene, body, hits=hits):
        try:
            verify(death.completed)
        except BaseException as error:
            error.add_note(f"killed at step {death.place}, torn={death.torn}")
            raise
        count += not death.completed
    return count
