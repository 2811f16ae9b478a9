"""What importing the package does, and needs."""

import os
import subprocess
import sys

import django.tasks
import pytest

import django_tasks_local.typing
from tests.support import ROOT


def test_the_package_imports_no_django() -> None:
    """`import django_tasks_local` alone costs nothing: a pool may end before it needs Django."""
    code = (
        "import sys, django_tasks_local as d; d.Progress; d.track; print('django' in sys.modules)"
    )
    done = subprocess.run(
        [sys.executable, "-c", code],
        cwd=ROOT,
        env={"PATH": os.environ["PATH"]},
        capture_output=True,
        text=True,
    )
    assert done.stdout == "False\n", done.stderr
    assert set(django_tasks_local.__all__) <= set(dir(django_tasks_local))
    with pytest.raises(AttributeError, match="nonsense"):
        _ = django_tasks_local.nonsense


def test_imports_need_no_settings() -> None:
    """A settings file may import from the package, and so may code that runs before it is read."""
    code = "import django_tasks_local as d; print(*[getattr(d, n).__class__ for n in d.__all__])"
    done = subprocess.run(
        [sys.executable, "-c", code],
        cwd=ROOT,
        env={"PATH": os.environ["PATH"]},
        capture_output=True,
        text=True,
    )
    assert done.stdout.count("class") == len(django_tasks_local.__all__), done.stderr


@pytest.mark.parametrize("missing", ["posix_ipc", "fcntl"])
def test_without_shared_memory(missing: str) -> None:
    """Where the system has none, threads still work and processes say what is missing."""
    code = f"""
import sys
sys.modules[{missing!r}] = None
import django_tasks_local
print(django_tasks_local.ThreadPoolBackend.__name__)
try:
    django_tasks_local.ProcessPoolBackend
except ImportError as error:
    print(error)
"""
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True)
    first, second = done.stdout.splitlines()
    assert first == "ThreadPoolBackend"
    assert "needs Linux" in second
    assert missing in second
    assert "ThreadPoolBackend" in second


def test_names_for_type_checkers_are_those_of_django() -> None:
    """At run time `django_tasks_local.typing` adds nothing."""
    names = django_tasks_local.typing.__all__
    assert all(getattr(django_tasks_local.typing, n) is getattr(django.tasks, n) for n in names)
