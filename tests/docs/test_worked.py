"""The changes that "How to add" in CONTRIBUTING.md shows: each applies, and works."""

import os
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.docs.diffs import StaleDiff, apply, hunks
from tests.docs.pages import links, prose, read, section
from tests.support import LONG_TIMEOUT, ROOT

WORKED = ROOT / "tests" / "docs" / "worked"
CONTRIBUTING = ROOT / "CONTRIBUTING.md"
# The heading of each, and the tests of the changed project that show it. Those that the diff itself
# adds are among them.
TITLES = {
    "option": "An option",
    "header-word": "A word of the header",
    "record-field": "A field of the record",
    "operation": "An operation of the ring",
    "command": "A management command",
}
FACTS, LAYOUT = "tests/docs/test_facts.py::", "tests/unit/ring/test_layout.py::"
DRAWN = [f"{LAYOUT}test_the_page_is_the_docstring"]
TESTS = {
    "option": [
        f"{FACTS}test_the_table_of_options_is_that_of_the_code",
        "tests/unit/test_options.py",
        "tests/process/test_worker_process.py::test_niceness",
    ],
    "header-word": [
        *DRAWN,
        f"{LAYOUT}test_the_docstring_has_every_word_at_its_place",
        "tests/unit/ring/test_recovery.py::test_rebuilds_are_counted",
    ],
    "record-field": [
        *DRAWN,
        f"{LAYOUT}test_the_docstring_has_every_word_of_a_record_at_its_place",
        f"{FACTS}test_the_size_of_a_slot_is_that_of_the_code",
        "tests/unit/ring/test_head.py",
        "tests/unit/ring/test_ran_on.py",
    ],
    "operation": [
        *DRAWN,
        "tests/unit/ring/test_forget.py",
        "tests/crash/test_points.py::test_death_at_every_step[forget-full]",
        "tests/crash/test_points.py::test_death_at_every_step[forget-chained]",
    ],
    "command": [
        f"{FACTS}test_the_options_of_the_commands_are_documented",
        "tests/unit/test_architecture.py::test_the_map_has_every_module",
        "tests/unit/test_commands.py::test_the_number_of_waiting_tasks",
    ],
}
WHERE = "import django_tasks_local; print(django_tasks_local.__file__)"
COPIED = ("django_tasks_local", "tests", "docs", "benchmarks", "examples", ".github")
RENEW = """
tests/docs/worked/{name}.diff does not fit the project any more: {error}

Renew the how-to "{title}" in CONTRIBUTING.md. With a clean working tree:

    git apply -C1 --reject tests/docs/worked/{name}.diff     # what still fits
    ...                                                      # the rest by hand, from *.rej
    find . -name '*.rej' -delete
    git add -AN . && git diff -U1 > /tmp/{name}.diff
    git checkout . && git clean -fd
    mv /tmp/{name}.diff tests/docs/worked/

Small hunks go stale less often. Where one fits two places, give that file -U2.
"""


class Copy:
    """A copy of the project with one diff applied."""

    def __init__(self, root: Path, name: str) -> None:
        self.root = root
        for folder in COPIED:
            ignored = shutil.ignore_patterns("__pycache__", "*.sqlite3", ".*")
            shutil.copytree(ROOT / folder, root / folder, ignore=ignored)
        for path in ROOT.iterdir():
            if path.is_file() and not path.name.startswith("."):
                shutil.copy(path, root)
        try:
            apply(read(WORKED / f"{name}.diff"), root)
        except StaleDiff as error:
            pytest.fail(RENEW.format(name=name, title=TITLES[name], error=error), pytrace=False)

    def run(self, *arguments: str, status: int = 0, **environment: str) -> str:
        """Run a fresh interpreter there; what it printed, its errors included."""
        # What this test run or a coverage run has set does not reach the other one.
        own = ("PYTEST_", "COV", "DJANGO_", "DTL_")
        inherited = {k: v for k, v in os.environ.items() if not k.startswith(own)}
        done = subprocess.run(
            [sys.executable, *arguments],
            cwd=self.root,
            env={
                **inherited,
                "PYTHONPATH": str(self.root),
                "PYTHONDONTWRITEBYTECODE": "1",
                **environment,
            },
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            timeout=LONG_TIMEOUT,
        )
        assert done.returncode == status, done.stdout
        return done.stdout


@pytest.fixture
def copies(tmp_path: Path) -> Iterator[Path]:
    """A directory for a copy, which is 3 MB and not kept."""
    yield tmp_path / "copy"
    shutil.rmtree(tmp_path)


@pytest.mark.parametrize("name", TITLES)
def test_a_worked_change_works(copies: Path, name: str) -> None:
    """The diff applies, and the changed project passes the tests that it adds and is bound by."""
    copy = Copy(copies, name)
    assert copy.run("-c", WHERE).strip() == str(copies / "django_tasks_local" / "__init__.py")
    printed = copy.run("-m", "pytest", "-q", "-p", "no:cacheprovider", *TESTS[name])
    assert re.search(r"\d+ passed", printed), printed


def test_the_new_option_is_checked(copies: Path, namespace: str) -> None:
    """`manage.py check` knows its bounds, with nothing but a row in the table."""
    copy = Copy(copies, "option")
    text = (
        "from tests.settings import *\n"
        'TASKS = {"default": {"BACKEND": "django_tasks_local.ProcessPoolBackend",\n'
        f'    "OPTIONS": {{"NAMESPACE": {namespace!r}, "NICE": 20}}}}}}\n'
    )
    (copies / "nice_settings.py").write_text(text)
    printed = copy.run("-m", "django", "check", status=1, DJANGO_SETTINGS_MODULE="nice_settings")
    assert "E004) TASKS['default']['OPTIONS']['NICE'] is 20; it must be a whole number" in printed
    (copies / "nice_settings.py").write_text(text.replace("20", "19"))
    copy.run("-m", "django", "check", DJANGO_SETTINGS_MODULE="nice_settings")


def test_the_new_command_prints(copies: Path) -> None:
    """`manage.py local_waiting` is found, and its help too."""
    copy = Copy(copies, "command")
    arguments = "-m", "django", "local_waiting"
    assert copy.run(*arguments, DJANGO_SETTINGS_MODULE="tests.settings") == "0\n"
    assert "--alias" in copy.run(*arguments, "--help", DJANGO_SETTINGS_MODULE="tests.settings")


@pytest.mark.parametrize("name", TITLES)
def test_every_place_is_named(name: str) -> None:
    """The how-to links to its diff, and names each file that the diff changes."""
    text = section(CONTRIBUTING, TITLES[name])
    assert f"](tests/docs/worked/{name}.diff)" in text
    changed = {hunk.path for hunk in hunks(read(WORKED / f"{name}.diff"))}
    named = set(re.findall(r"`([\w./-]+)`", text))
    assert not {path for path in changed if not {path, _in_package(path)} & named}


def test_every_diff_has_a_how_to() -> None:
    """No diff is left over, and none is missing."""
    assert {path.name for path in WORKED.iterdir()} == {f"{name}.diff" for name in TITLES}
    assert {"tests/docs/worked/" + f"{name}.diff" for name in TITLES} <= set(links(CONTRIBUTING))
    assert "## How to add" in prose(CONTRIBUTING)


def test_a_stale_diff_is_told(tmp_path: Path) -> None:
    """By the place that it does not fit, also where it would fit two."""
    diff = "diff --git a/x b/x\n--- a/x\n+++ b/x\n@@ -1,2 +1,2 @@\n one\n-two\n+three\n"
    path = tmp_path / "x"
    path.write_text("zero\none\ntwo\n")
    apply(diff, tmp_path)
    assert path.read_text() == "zero\none\nthree\n"
    with pytest.raises(StaleDiff, match="x has this 0 times"):
        apply(diff, tmp_path)
    path.write_text("one\ntwo\none\ntwo\n")
    with pytest.raises(StaleDiff, match="x has this 2 times"):
        apply(diff, tmp_path)


def _in_package(path: str) -> str:
    """The path as CONTRIBUTING's map has it."""
    return path.removeprefix("django_tasks_local/")
