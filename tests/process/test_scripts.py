"""Plain scripts, `manage.py shell` and Ctrl-C: processes that enqueue and serve no requests."""

import os
import signal
import sys
from collections.abc import Iterator
from pathlib import Path
from textwrap import dedent

import pytest

from tests.process.client import (
    environment,
    fresh_namespace,
    reading,
    serving,
    worker_at,
    workers_at,
)
from tests.process.programs import run, running
from tests.support import LONG_TIMEOUT, MARK, marked_pids, stays, wait_for

CONFIGURE = """
from django.conf import settings

if not settings.configured:
    settings.configure(
        SECRET_KEY="k",
        TASKS={
            "default": {
                "BACKEND": "django_tasks_local.ProcessPoolBackend",
                "OPTIONS": {"MAX_WORKERS": 2, "NAMESPACE": NAMESPACE},
            }
        },
    )
import django

django.setup()
from django.tasks import task


@task
def double(number):
    return 2 * number


@task
def where():
    import __main__

    return __main__.__file__
"""
RESULT = """
from tests.site.waiting import finished
"""


@pytest.fixture
def namespace() -> Iterator[str]:
    """Ends only when the pools of the test's scripts have gone by themselves."""
    with fresh_namespace() as made:
        yield made
        wait_for(lambda: not pools(), message="the end of the scripts' pools")


def pools() -> list[int]:
    """Pools that come from this test."""
    return [
        pid for pid in marked_pids(os.environ[MARK])
        if b"django_tasks_local.pool" in Path(f"/proc/{pid}/cmdline").read_bytes()
    ]  # fmt: skip


def script(folder: Path, namespace: str, text: str) -> str:
    """A script with settings.configure() and tasks of its own."""
    path = folder / "script.py"
    head = f"NAMESPACE = {namespace!r}\n{CONFIGURE}{RESULT}"
    path.write_text(head + dedent(text))
    return str(path)


def test_tasks_in_main(namespace: str, tmp_path: Path) -> None:
    """settings.configure() and tasks in the script itself, behind the usual guard."""
    path = script(
        tmp_path, namespace,
        """
        if __name__ == "__main__":
            print(finished(double.enqueue(21)), finished(where.enqueue()))
        """,
    )  # fmt: skip
    status, out, err = run(namespace, [path], DJANGO_SETTINGS_MODULE="")
    assert (status, out.split()) == (0, ["42", path]), err


def test_a_script_without_standard_streams(namespace: str, tmp_path: Path) -> None:
    """A daemon may close all three: what a library writes there must not reach the ring."""
    path = script(
        tmp_path, namespace,
        """
        if __name__ == "__main__":
            import os
            from contextlib import suppress

            first = finished(double.enqueue(21))
            for descriptor in (0, 1, 2):
                with suppress(OSError):
                    os.write(descriptor, b"x" * 8192)
            with open(os.environ["OUT"] + "/out", "w") as out:
                print(first, finished(double.enqueue(22)), file=out)
        """,
    )  # fmt: skip
    close = "import os, sys; os.closerange(0, 3); os.execv(sys.argv[1], sys.argv[1:])"
    arguments = ["-c", close, sys.executable, path]
    with running(namespace, arguments, DJANGO_SETTINGS_MODULE="", OUT=str(tmp_path)) as process:
        assert process.wait(LONG_TIMEOUT) == 0
    assert (tmp_path / "out").read_text().split() == ["42", "44"]


def test_tasks_in_main_without_a_guard(namespace: str, tmp_path: Path) -> None:
    """The pool would run the script once more: it refuses, and names the guard that is missing."""
    path = script(tmp_path, namespace, "double.enqueue(21)\n")
    with running(namespace, [path], DJANGO_SETTINGS_MODULE="") as process:
        assert process.stderr is not None
        lines: list[str] = []

        def told() -> bool:
            assert process.stderr is not None
            lines.append(process.stderr.readline())
            return 'if __name__ == "__main__":' in lines[-1]

        wait_for(told, LONG_TIMEOUT)
        assert "RuntimeError" in lines[-1]
        assert f"the main script {path}" in lines[-1]
        process.send_signal(signal.SIGINT)
        assert process.wait(LONG_TIMEOUT) == 0


@pytest.mark.parametrize(
    ("arguments", "source"), [(["-"], "standard input"), (["-c"], "-c or a prompt")]
)
def test_tasks_that_no_pool_can_import(
    namespace: str, tmp_path: Path, arguments: list[str], source: str
) -> None:
    """What comes from no file is refused when it is enqueued, and the script ends."""
    text = Path(script(tmp_path, namespace, "double.enqueue(21)\n")).read_text()
    with_text = [*arguments, text] if arguments == ["-c"] else arguments
    status, _, err = run(namespace, with_text, text=text, DJANGO_SETTINGS_MODULE="")
    assert status == 1
    assert f"InvalidTask: Task __main__.double is defined in {source}" in err
    assert not pools()


def test_a_class_of_the_script_as_an_argument(namespace: str, tmp_path: Path) -> None:
    """Where the pool imports the script it is found there; elsewhere enqueue refuses it."""
    path = tmp_path / "main.py"
    text = (
        "import django\n"
        "django.setup()\n"
        "from django.tasks import task\n"
        "from tests.site.tasks import describe\n" + RESULT + "class Box:\n"
        "    pass\n"
        "{more}"
        'if __name__ == "__main__":\n'
        "    print(finished(describe.enqueue(Box())))\n"
    )
    path.write_text(text.format(more=""))
    status, _, err = run(namespace, [str(path)])
    assert status == 1
    assert "ValueError: The arguments of task tests.site.tasks.describe cannot be pickled" in err
    assert f"Box is defined in the main script ({path})" in err
    path.write_text(text.format(more="@task\ndef job():\n    pass\n"))
    status, out, err = run(namespace, [str(path)])
    assert (status, out) == (0, "Box\n"), err


def test_settings_that_do_not_travel(namespace: str, tmp_path: Path) -> None:
    """A value of settings.configure() that cannot be pickled is named in the log."""
    path = script(
        tmp_path, namespace,
        """
        if __name__ == "__main__":
            settings.ODD_ONE = lambda: 1
            double.enqueue(21)
            import os
            os._exit(0)
        """,
    )  # fmt: skip
    _, _, err = run(namespace, [path], DJANGO_SETTINGS_MODULE="")
    assert "settings.ODD_ONE cannot be pickled" in err


def test_settings_configured_behind_the_guard(namespace: str, tmp_path: Path) -> None:
    """Then the pool gets their values over a pipe; the tasks are in a module of their own."""
    path = tmp_path / "main.py"
    path.write_text(
        'if __name__ == "__main__":\n'
        "    import django\n"
        "    from django.conf import settings\n"
        "    settings.configure(TASKS={'default': {'BACKEND':\n"
        "        'django_tasks_local.ProcessPoolBackend', 'OPTIONS':\n"
        f"        {{'MAX_WORKERS': 1, 'NAMESPACE': {namespace!r}}}}}}})\n"
        "    django.setup()\n"
        "    from tests.site.tasks import add\n"
        "    from tests.site.waiting import finished\n"
        "    print(finished(add.enqueue(1, 2)))\n"
    )
    status, out, err = run(namespace, [str(path)], DJANGO_SETTINGS_MODULE="")
    assert (status, out) == (0, "3\n"), err


def test_a_settings_module_and_tasks_in_main(namespace: str, tmp_path: Path) -> None:
    """The script is imported by the pool, and shares the ring with the site of those settings."""
    path = tmp_path / "report.py"
    path.write_text(
        "import django\n"
        "django.setup()\n"
        "from django.tasks import task\n"
        "@task\n"
        "def triple(n):\n"
        "    return 3 * n\n" + RESULT + 'if __name__ == "__main__":\n'
        "    print(finished(triple.enqueue(4)))\n"
    )
    status, out, err = run(namespace, [str(path)])
    assert (status, out) == (0, "12\n"), err
    with serving(workers=1, env={"DTL_NAMESPACE": namespace}) as client:
        assert client.run("add", 1) == 1
        status, out, err = run(namespace, [str(path)])  # takes over from the site's pool
        assert (status, out) == (0, "12\n"), err
        assert client.run("add", 2) == 2


def test_a_thousand_tasks_and_the_end(namespace: str, tmp_path: Path) -> None:
    """A script that enqueues and ends waits until all is done, and says so."""
    log = tmp_path / "log"
    path = tmp_path / "main.py"
    path.write_text(
        "import django\n"
        "django.setup()\n"
        "from tests.site.tasks import note\n"
        f"ids = [note.enqueue({str(log)!r}).id for _ in range(1000)]\n"
        "print(*ids)\n"
    )
    status, out, err = run(namespace, [str(path)])
    assert status == 0
    assert "waiting for" in err
    assert "tasks of 'default' that this script enqueued" in err
    assert sorted(log.read_text().split()) == sorted(out.split())
    assert len(out.split()) == 1000


def test_interrupted_while_it_waits(namespace: str, tmp_path: Path) -> None:
    """Ctrl-C ends the wait; what is left is in the ring, and runs with the next process."""
    gate, log = tmp_path / "gate", tmp_path / "log"
    path = tmp_path / "main.py"
    path.write_text(
        "import django\n"
        "django.setup()\n"
        "from tests.site.tasks import hold, note\n"
        f"hold.enqueue({str(gate)!r})\n"
        f"print(note.enqueue({str(log)!r}).id)\n"
    )
    options = {"MAX_WORKERS": 1, "DRAIN_TIMEOUT": 0}
    settings = environment(namespace, **options)
    with running(namespace, [str(path)], **settings) as process:
        worker_at(gate)
        assert process.stderr is not None
        assert "waiting for 2 tasks" in process.stderr.readline()
        process.send_signal(signal.SIGINT)
        out, err = process.communicate(timeout=LONG_TIMEOUT)
        assert "left in the ring" in err
        assert "Traceback" not in err
    wait_for(lambda: not pools())
    with reading(namespace, **options) as ring:
        assert ring.get_result(out.strip()).status == "READY"
    path.write_text(
        "import django\ndjango.setup()\nfrom tests.site.tasks import add\nadd.enqueue(1)"
    )
    status, _, _ = run(namespace, [str(path)], **settings)
    assert status == 0
    assert log.read_text() == out


def test_a_script_beside_a_site_does_not_wait(namespace: str, tmp_path: Path) -> None:
    """Somebody else is there to keep the pool alive."""
    gate = tmp_path / "gate"
    path = tmp_path / "main.py"
    path.write_text(
        "import django\n"
        "django.setup()\n"
        "from tests.site.tasks import hold\n"
        f"print(hold.enqueue({str(gate)!r}).id)\n"
    )
    with serving(workers=1, env={"DTL_NAMESPACE": namespace}) as client:
        client.run("add", 1)
        status, out, err = run(namespace, [str(path)])
        assert (status, err) == (0, "")
        assert client.status(out.strip()) in ("READY", "RUNNING")
        gate.touch()
        client.value(out.strip())


def test_two_scripts_that_end_at_a_time(namespace: str, tmp_path: Path) -> None:
    """Neither leaves its tasks to the other."""
    gate, path = tmp_path / "gate", tmp_path / "main.py"
    path.write_text(
        "import django\n"
        "django.setup()\n"
        "from tests.site.tasks import hold\n"
        f"hold.enqueue({str(gate)!r})\n"
    )
    with running(namespace, [str(path)]) as one, running(namespace, [str(path)]) as two:
        wait_for(lambda: len(workers_at(gate)) == 2, LONG_TIMEOUT)
        stays(lambda: one.poll() is None and two.poll() is None, 1)
        gate.touch()
        for process in (one, two):
            _, err = process.communicate(timeout=LONG_TIMEOUT)
            assert "waiting for 1 task of" in err
            assert process.returncode == 0


def test_the_shell(namespace: str, tmp_path: Path) -> None:
    """`manage.py shell -c`: its tasks are done before the prompt comes back."""
    log = tmp_path / "log"
    code = f"from tests.site.tasks import note; note.enqueue({str(log)!r}, 'from the shell')"
    status, _, err = run(namespace, ["-m", "django", "shell", "-c", code])
    assert status == 0, err
    assert log.read_text() == "from the shell\n"


def test_who_starts_nothing(namespace: str) -> None:
    """`check`, `migrate` and the import of a module with tasks make no segment and no process."""
    before = set(Path("/dev/shm").iterdir())
    for arguments in (
        ["-m", "django", "check"],
        ["-m", "django", "migrate", "--plan"],
        ["-c", "import django; django.setup(); import tests.site.tasks"],
    ):
        status, _, err = run(namespace, arguments, DTL_DB=":memory:")
        assert status == 0, err
    assert not pools()
    name = namespace  # its ring's name is a hash of it; new objects of others are theirs
    with reading(name) as ring:
        assert Path(f"/dev/shm{ring.spec().name}s") not in set(Path("/dev/shm").iterdir()) - before
