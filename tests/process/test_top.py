"""`local_tasks top` in a real terminal, beside a real site."""

import os
import shlex
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final

import pytest

from django_tasks_local.ring import Look, Role, ring_name
from tests.process.client import Client, environment, serving
from tests.support import LONG_TIMEOUT, ROOT, wait_for

NEEDED: Final = os.environ.get("CI") or os.environ.get("DTL_TESTS_NEED_TMUX")


class Terminal:
    """One of 80 columns and 24 lines, in a server of its own.

    Args:
        folder: Where its socket is.
        env: For the program in it.
        words: The program.
    """

    def __init__(self, folder: Path, env: dict[str, str], words: list[str]) -> None:
        self._socket = str(folder / "tmux")
        # tmux tells it as well, but on a busy machine it may never hear that a program has ended.
        self._status = folder / "status"
        self._status.touch()
        command = shlex.join(["env", *(f"{name}={value}" for name, value in env.items()), *words])
        command += f"; echo $? >{shlex.quote(str(self._status))}"
        self._tmux("-f", os.devnull, "new-session", "-d", "-x", "80", "-y", "24", command)
        self._tmux("set-option", "-g", "remain-on-exit", "on")

    def _tmux(self, *words: str) -> str:
        done = subprocess.run(
            ["tmux", "-S", self._socket, *words], cwd=ROOT, capture_output=True, text=True,
            check=True,
        )  # fmt: skip
        return done.stdout

    def press(self, *keys: str) -> None:
        """Presses keys, by tmux's names."""
        self._tmux("send-keys", *keys)

    def lines(self) -> list[str]:
        """What is on the screen."""
        return self._tmux("capture-pane", "-p").splitlines()

    def shows(self, *texts: str, hidden: str = "\0") -> list[str]:
        """Wait until all texts are on the screen, and another is not; return its lines."""
        found: list[str] = []

        def there() -> bool:
            found[:] = self.lines()
            text = "\n".join(found)
            return hidden not in text and all(each in text for each in texts)

        self._wait_for(there, f"{texts} on the screen")
        return found

    def ends(self) -> None:
        """Wait for the end of the program, with exit status 0."""
        self._wait_for(lambda: self._status.read_text().endswith("\n"), "its end")
        assert self._status.read_text() == "0\n"

    def _wait_for(self, condition: Callable[[], bool], message: str) -> None:
        try:
            wait_for(condition, LONG_TIMEOUT, message)
        except AssertionError as error:
            error.add_note("\n".join(["On the screen:", *self.lines()]))
            raise

    def close(self) -> None:
        """Ends it with the program in it."""
        self._tmux("kill-server")


@contextmanager
def terminal(client: Client, folder: Path) -> Iterator[Terminal]:
    """A terminal in which `local_tasks top` runs."""
    if shutil.which("tmux") is None:
        if NEEDED:
            pytest.fail("there is no tmux; .ci/run installs it")
        pytest.skip("there is no tmux here; as root `apt-get install tmux`")
    words = [sys.executable, "-m", "django", "local_tasks", "top", "--alias", "default"]
    made = Terminal(folder, environment(client.namespace), words)
    try:
        yield made
    finally:
        made.close()


def test_a_terminal_beside_a_site(tmp_path: Path) -> None:
    """It follows what happens; cancels and retries after a question; it is nobody to the ring."""
    with serving(workers=1) as client:
        failed = client.enqueue("add", 1, "two")
        client.error(failed)
        running = client.enqueue("report_and_hold", str(tmp_path / "gate"))
        with terminal(client, tmp_path) as top:
            top.shows("1 Running 1", "3 Failed 1", "report_and_hold", "MiB", "30%")
            look = Look.into(ring_name("default", client.namespace), "default")
            assert look is not None
            assert Role.VISITOR not in {entry.role for entry in look.attached()}
            client.run("add", 1, 2)
            top.shows("4 Finished 1")  # without a key

            top.press("C")
            top.shows("Cancel: ", running)
            top.press("y")
            assert client.error(running)[0].endswith(".TaskCancelled")
            top.shows("1 Running 0", "3 Failed 2")

            top.press("3", "/", "unsupported", "Enter")
            top.shows("TypeError: unsupported", hidden="report_and_hold")
            top.press("Enter")
            top.shows(failed, "return a + b")
            top.press("R")
            top.shows("Enqueue once more: tests.site.tasks.add?")
            top.press("y")
            lines = top.shows("Enqueued again as")
            assert max(map(len, lines)) <= 80
            top.press("Enter")
            top.shows("3 Failed 3")
            top.press("q")
            top.ends()
            assert Role.VISITOR not in {entry.role for entry in look.attached()}
