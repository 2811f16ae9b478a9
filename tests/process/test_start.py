"""What a pool, and a worker that is started fresh, has from the process that starts it."""

import json
import os
import shutil
import signal
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import posix_ipc
import pytest

from tests.leaks import remove_objects
from tests.process.client import fresh_namespace, serving, worker_at
from tests.process.programs import run, running
from tests.support import LONG_TIMEOUT, ROOT, wait_for

MAIN = """
import json
import os
import signal
import sys

{first}
import django

django.setup()
{later}
from tests.site.tasks import surroundings
from tests.site.waiting import finished

if __name__ == "__main__":
    print(json.dumps(finished(surroundings.enqueue())))
"""


@pytest.fixture
def namespace() -> Iterator[str]:
    """One of this test's own."""
    with fresh_namespace() as name:
        yield name


@pytest.fixture(params=["pool", "fresh worker"])
def kind(request: pytest.FixtureRequest) -> dict[str, str]:
    """The environment in which a pool forks its workers, or starts fresh interpreters."""
    return {} if request.param == "pool" else {"DTL_THREAD": "1"}


def surroundings(
    namespace: str,
    folder: Path,
    *,
    first: str = "",
    later: str = "",
    flags: tuple[str, ...] = (),
    **options: Any,
) -> dict[str, Any]:
    """Those of a task that a script enqueues; `first` and `later` are the script's own doing."""
    path = folder / "main.py"
    path.write_text(MAIN.format(first=first, later=later))
    status, out, err = run(namespace, [*flags, str(path)], **options)
    assert status == 0, err
    found: dict[str, Any] = json.loads(out)
    return found


def test_a_hostile_working_directory(namespace: str, kind: dict[str, Any], tmp_path: Path) -> None:
    """What lies in the directory where a script is run is imported by none of its processes."""
    evil, log = tmp_path / "evil", tmp_path / "log"
    evil.mkdir()
    for name in (
        "argparse",
        "pickle",
        "posix_ipc",
        "django_tasks_local",
        "django",
        "sitecustomize",
    ):
        (evil / f"{name}.py").write_text(
            f"open({str(log)!r}, 'a').write('{name} ')\nraise ImportError\n"
        )
    found = surroundings(namespace, tmp_path, cwd=evil, **kind)
    assert not log.exists(), log.read_text()
    assert found["directory"] == str(evil)
    assert str(evil) not in found["path"]


def test_each_package_in_a_place_of_its_own(
    namespace: str, kind: dict[str, Any], tmp_path: Path
) -> None:
    """PEX, Nix, buildout and Bazel put sys.path together in the process that runs the site."""
    here = tmp_path / "one"
    here.mkdir()
    shutil.copy(posix_ipc.__file__, here)
    (here / "django_tasks_local").symlink_to(ROOT / "django_tasks_local")
    places = [str(here), str(ROOT), *(path for path in sys.path if path.endswith("-packages"))]
    found = surroundings(
        namespace, tmp_path, first=f"sys.path[1:1] = {places!r}",
        flags=("-I", "-S"), **kind,
    )  # fmt: skip
    assert found["path"][1:4] == places[:3]


def test_nothing_of_it_is_handed_on(namespace: str, kind: dict[str, Any], tmp_path: Path) -> None:
    """What a task starts has the site's environment, and no way into its packages."""
    found = surroundings(namespace, tmp_path, later="sys.path.append('/elsewhere')", **kind)
    assert "/elsewhere" in found["path"]
    assert found["environment"]["PYTHONPATH"] == str(ROOT)


def test_what_is_no_text_in_the_path(namespace: str, kind: dict[str, Any], tmp_path: Path) -> None:
    """A Path object there, which no import looks at, is in nobody's way."""
    later = "from pathlib import Path\nsys.path.append(Path('/elsewhere'))\nsys.path.append(3)"
    assert "/elsewhere" not in surroundings(namespace, tmp_path, later=later, **kind)["path"]


def test_no_signal_is_blocked_or_ignored(
    namespace: str, kind: dict[str, Any], tmp_path: Path
) -> None:
    """Servers block all signals in their threads, shells and nohup ignore some."""
    first = (
        "signal.pthread_sigmask(signal.SIG_BLOCK, signal.valid_signals())\n"
        "for number in (signal.SIGINT, signal.SIGQUIT, signal.SIGHUP, signal.SIGCHLD):\n"
        "    signal.signal(number, signal.SIG_IGN)\n"
    )
    found = surroundings(namespace, tmp_path, first=first, **kind)
    assert found["blocked"] == []
    assert set(found["ignored"]) <= {signal.SIGPIPE, signal.SIGXFSZ}


def test_the_working_directory_is_gone(
    namespace: str, kind: dict[str, Any], tmp_path: Path
) -> None:
    """A release that was removed, a temporary directory: the root is used instead."""
    gone = tmp_path / "gone"
    gone.mkdir()
    first = "os.rmdir(os.getcwd())"
    assert surroundings(namespace, tmp_path, first=first, cwd=gone, **kind)["directory"] == "/"


def test_where_the_project_was_loaded(namespace: str, kind: dict[str, Any], tmp_path: Path) -> None:
    """A script that goes elsewhere later takes no pool with it."""
    found = surroundings(namespace, tmp_path, later="os.chdir('/')", cwd=tmp_path, **kind)
    assert found["directory"] == str(tmp_path)


def test_settings_that_were_loaded(namespace: str, kind: dict[str, Any], tmp_path: Path) -> None:
    """The variable that names them may say something else by now."""
    later = "os.environ['DJANGO_SETTINGS_MODULE'] = 'tests.settings'"
    found = surroundings(namespace, tmp_path, later=later, **kind)
    assert found["environment"]["DJANGO_SETTINGS_MODULE"] == "tests.site.settings"


def test_unbuffered_output(namespace: str, kind: dict[str, Any], tmp_path: Path) -> None:
    """-u counts for the pool as well."""
    kind["PYTHONUNBUFFERED"] = ""
    assert surroundings(namespace, tmp_path, flags=("-u",), **kind)["unbuffered"]
    assert not surroundings(namespace, tmp_path, **kind)["unbuffered"]


@pytest.mark.parametrize("alias", ["-x", "--help", "a b", "ünï", "x\0y"])
def test_any_text_is_an_alias(
    namespace: str, kind: dict[str, Any], tmp_path: Path, alias: str
) -> None:
    """It is no argument of a command line."""
    backend = "django_tasks_local.ProcessPoolBackend"
    tasks = {
        name: {"BACKEND": backend, "OPTIONS": {"MAX_WORKERS": 1, "NAMESPACE": namespace}}
        for name in ("default", alias)
    }
    path = tmp_path / "main.py"
    path.write_text(
        "import django\n"
        "django.setup()\n"
        "from tests.site.tasks import add\n"
        "from tests.site.waiting import finished\n"
        f"print(finished(add.using(backend={alias!r}).enqueue(1, 2)))\n"
    )
    status, out, err = run(namespace, [str(path)], DTL_TASKS=json.dumps(tasks), **kind)
    remove_objects(namespace, [alias])
    assert (status, out) == (0, "3\n"), err


def test_a_server_takes_over_from_a_scripts_pool(namespace: str, tmp_path: Path) -> None:
    """A niced cron job that enqueues first does not slow down the site's tasks for good."""
    path = tmp_path / "main.py"
    path.write_text(MAIN.format(first="", later=""))
    with serving(workers=1, env={"DTL_NAMESPACE": namespace, "WEB_ONLY": "yes"}) as client:
        # To files, as from cron: a pipe's reader would wait for the end of the pool.
        into_files = f'exec nice -n 5 "$@" >{tmp_path}/out 2>{tmp_path}/err'
        before = ["sh", "-c", into_files, "sh"]
        status, _, _ = run(namespace, [str(path)], before=before, CRON_ONLY="yes")
        assert status == 0, (tmp_path / "err").read_text()
        assert json.loads((tmp_path / "out").read_text())["nice"] == os.nice(0) + 5

        def taken_over() -> bool:
            found = client.run("surroundings")
            environment = found["environment"]
            return bool(found["nice"] == os.nice(0) and environment["WEB_ONLY"] == "yes")

        wait_for(taken_over, LONG_TIMEOUT)
        assert "CRON_ONLY" not in client.run("surroundings")["environment"]
        wait_for(lambda: len(client.supervisors()) == 1)
        assert "a server is there" in (tmp_path / "err").read_text()


def test_a_script_with_tasks_keeps_its_pool(namespace: str, tmp_path: Path) -> None:
    """A server's pool would not find them."""
    gate = tmp_path / "gate"
    path = tmp_path / "main.py"
    path.write_text(
        "import django\n"
        "django.setup()\n"
        "from django.tasks import task\n"
        "from tests.site.tasks import hold as hold_there\n"
        "from tests.site.waiting import finished\n"
        "@task\n"
        "def hold(gate):\n"
        "    return hold_there.func(gate)\n"
        "@task\n"
        "def second():\n"
        "    return 'two'\n"
        'if __name__ == "__main__":\n'
        f"    first = hold.enqueue({str(gate)!r})\n"
        "    print(finished(second.enqueue()))\n"
        "    finished(first)\n"
    )
    with serving(workers=1, env={"DTL_NAMESPACE": namespace}) as client:
        client.run("add", 1)
        with running(namespace, [str(path)]) as process:
            worker_at(gate)
            assert process.stdout is not None
            assert process.stdout.readline() == "two\n"
            gate.touch()
            assert process.wait(LONG_TIMEOUT) == 0
