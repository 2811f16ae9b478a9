"""A script after the end of its main code: its threads and exit functions still enqueue."""

from pathlib import Path
from textwrap import dedent

import pytest

from tests.process.client import fresh_namespace
from tests.process.programs import run
from tests.process.test_scripts import CONFIGURE, pools
from tests.support import wait_for

TASKS = """
import atexit, os, signal, threading
from pathlib import Path

from django.tasks import task
from tests.support import wait_for

log = Path({log!r})


def write(text):
    with log.open("a") as file:
        file.write(text + " ")


def read_text():
    return log.read_text() if log.exists() else ""


@task
def note(text):
    write(text)


@task
def hold():
    write("begun")
    signal.pause()
"""
AFTER_THE_END = {
    "enqueued in a thread": """
        def go():
            threading.main_thread().join()
            note.enqueue("thread")

        if __name__ == "__main__":
            threading.Thread(target=go).start()
        """,
    "enqueued in an exit function": """
        if __name__ == "__main__":
            atexit.register(lambda: note.enqueue("exit function"))
        """,
    "the pool is killed": """
        def go():
            threading.main_thread().join()
            wait_for(lambda: read_text() == "begun begun ")
            (pool,) = [e.pid for e in site.ring.registry.attachments() if e.role.name == "POOL"]
            os.kill(pool, signal.SIGKILL)

        if __name__ == "__main__":
            site = note.get_backend().site()
            for _ in range(2):
                hold.enqueue()
            note.enqueue("second pool")
            threading.Thread(target=go).start()
        """,
}


@pytest.mark.parametrize("what", AFTER_THE_END)
@pytest.mark.parametrize("settings", ["module", "configured"])
def test_after_the_end_of_the_main_code(tmp_path: Path, what: str, settings: str) -> None:
    """A script's own tasks run, although Python has forgotten the script's file."""
    path = tmp_path / "script.py"
    log = tmp_path / "log"
    head = CONFIGURE if settings == "configured" else "import django\ndjango.setup()\n"
    end = dedent(AFTER_THE_END[what])
    env = {"DJANGO_SETTINGS_MODULE": ""} if settings == "configured" else {}
    env["DTL_OPTIONS"] = '{"MAX_WORKERS": 2}'  # as those of the others have it
    with fresh_namespace() as namespace:
        path.write_text(f"NAMESPACE = {namespace!r}\n{head}{TASKS.format(log=str(log))}{end}")
        status, _, err = run(namespace, [str(path)], **env)
        assert status == 0, err
        wait_for(lambda: not pools(), message="the end of the script's pools")
    wanted = {
        "enqueued in a thread": "thread ",
        "enqueued in an exit function": "exit function ",
        "the pool is killed": "begun begun second pool ",
    }
    assert log.read_text() == wanted[what], err
