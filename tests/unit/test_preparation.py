"""What a pool is told of its site."""

import os
import pickle
import subprocess
import sys

import pytest
from django.conf import settings
from django.test import override_settings

from django_tasks_local import under_test
from django_tasks_local.exceptions import StoreUnavailable
from django_tasks_local.pool import project
from django_tasks_local.pool.project import Preparation
from tests import settings as settings_file


def test_the_settings_module() -> None:
    """Also under override_settings, which puts another layer around it."""
    assert project.settings_module() == "tests.settings"
    with override_settings(USE_TZ=False), override_settings(SECRET_KEY="x"):
        assert project.settings_module() == "tests.settings"
    assert project.settings_path() == os.path.realpath(settings_file.__file__)


def test_what_a_site_with_a_module_tells() -> None:
    """Arguments, and neither its main script nor its settings' values: the module has them."""
    told = Preparation.of_this_process("namespace", "path")
    assert told.settings is None
    assert told.main == {"sys_argv": sys.argv}
    assert told.module == "tests.settings"
    assert told.databases == {}
    assert pickle.loads(told.dumps()) == told


def test_configured_values_are_told() -> None:
    """Without a module: every value of settings.configure(), and no default."""
    code = (
        "from django.conf import settings\n"
        "settings.configure(DEBUG=True, SECRET_KEY='k')\n"
        "from django_tasks_local.pool.project import Preparation, settings_path\n"
        "print(Preparation.of_this_process('', '').settings, repr(settings_path()))\n"
    )
    env = {key: value for key, value in os.environ.items() if key != "DJANGO_SETTINGS_MODULE"}
    told = subprocess.run(
        [sys.executable, "-c", code], env=env, capture_output=True, text=True, check=True
    ).stdout.strip()
    assert told == "{'DEBUG': True, 'SECRET_KEY': 'k'} ''"


def test_a_value_that_cannot_be_pickled_is_named() -> None:
    """It says which, and the way out."""
    told = Preparation("", "", settings={"FINE": 1, "ODD": lambda: 1})
    with pytest.raises(StoreUnavailable, match=r"settings\.ODD cannot be pickled") as caught:
        told.dumps()
    assert "DJANGO_SETTINGS_MODULE" in str(caught.value)


def test_test_databases(monkeypatch: pytest.MonkeyPatch) -> None:
    """Under a test runner the pool is told their names; those in memory cannot be shared."""
    assert under_test.databases() == {}
    assert under_test.unshared_databases() == []
    monkeypatch.setattr(under_test, "under_test", lambda: True)
    assert under_test.databases() == {"default": str(settings.DATABASES["default"]["NAME"])}
    assert under_test.unshared_databases() == []


@pytest.mark.parametrize("descriptor", [1, 2])
def test_piped_output(descriptor: int) -> None:
    """A pipe has a reader who waits for its end; a file, or nothing, has none."""
    code = "from django_tasks_local.pool.project import *; import os\n"
    code += "os._exit(10 + output_is_piped())"
    command = [sys.executable, "-c", code]
    redirects = {1: subprocess.DEVNULL, 2: subprocess.DEVNULL}

    def run() -> int:
        return subprocess.run(command, stdout=redirects[1], stderr=redirects[2]).returncode

    assert run() == 10
    redirects[descriptor] = subprocess.PIPE
    assert run() == 11


def test_closed_output() -> None:
    """A daemon may have closed both."""
    code = "import os; os.closerange(0, 3)\n"
    code += "from django_tasks_local.pool.project import *; os._exit(10 + output_is_piped())"
    done = subprocess.run([sys.executable, "-c", code], stdout=subprocess.PIPE, check=False)
    assert done.returncode == 10
