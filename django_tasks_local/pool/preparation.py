"""What a pool must know to import the project as its site did, and how it gets there.

It goes through a pipe, not the command line: settings hold secrets.
"""

import os
import pickle
import stat
import sys
from dataclasses import dataclass, field
from importlib import import_module
from multiprocessing import spawn
from typing import Any

from django_tasks_local.exceptions import StoreUnavailable

_state = {"importing main": False}


@dataclass(frozen=True)
class Preparation:
    """One site's way to its project.

    Attributes:
        namespace: The default namespace, for aliases whose options name none.
        path: The settings file, and the main script where tasks are defined in it.
        main: How to prepare ``sys.path``, the working directory and ``__main__``, in the form that
            ``multiprocessing`` uses for its own children.
        settings: The values of ``settings.configure()``, None where there is a settings module.
        databases: Under a test runner: the names of the test databases.
        lender: The serial of the script whose output the pool inherits, where that is a pipe; 0.
    """

    namespace: str
    path: str
    main: dict[str, Any] = field(default_factory=dict)
    settings: dict[str, Any] | None = None
    databases: dict[str, str] = field(default_factory=dict)
    lender: int = 0

    @classmethod
    def of_this_process(cls, namespace: str, path: str, lender: int = 0) -> "Preparation":
        """What a pool that this process starts must know."""
        return cls(namespace, path, _main(), _configured_values(), test_databases(), lender)

    def dumps(self) -> bytes:
        """For the pipe.

        Raises:
            StoreUnavailable: A value of ``settings.configure()`` can't be pickled.
        """
        for name, value in (self.settings or {}).items():
            try:
                pickle.dumps(value)
            except Exception as error:
                raise StoreUnavailable(
                    f"settings.{name} can't be pickled ({error}), so the pool can't be told it",
                    fix="put the settings into a module and set DJANGO_SETTINGS_MODULE",
                ) from error
        return pickle.dumps(self)

    def apply(self) -> None:
        """Imports the project in a fresh interpreter: paths, ``__main__``, settings, setup."""
        _state["importing main"] = True
        try:
            spawn.prepare(dict(self.main))
        finally:
            _state["importing main"] = False
        import django
        from django.conf import settings

        if not settings.configured and self.settings is not None:
            settings.configure(**self.settings)
        for alias, name in self.databases.items():
            settings.DATABASES[alias]["NAME"] = name
        django.setup()


def output_is_piped() -> bool:
    """Whether somebody reads what this process writes, and waits for the end of it."""
    modes = [os.fstat(descriptor).st_mode for descriptor in (1, 2) if _is_open(descriptor)]
    return any(stat.S_ISFIFO(mode) or stat.S_ISSOCK(mode) for mode in modes)


def importing_main() -> bool:
    """Whether this is a pool that is just importing its site's main script."""
    return _state["importing main"]


def settings_path() -> str:
    """Where this process's settings come from: a file, or "" for none."""
    module = sys.modules.get(settings_module())
    return os.path.realpath(getattr(module, "__file__", None) or "") if module else ""


def settings_module() -> str:
    """The dotted name of the settings module, "" after ``settings.configure()``."""
    from django.conf import settings

    holder: Any = settings._wrapped
    while hasattr(holder, "default_settings"):  # override_settings wraps once more
        holder = holder.default_settings
    return getattr(holder, "SETTINGS_MODULE", None) or ""


def main_path() -> str:
    """The main script's real path, "" for an interactive interpreter."""
    path = getattr(sys.modules.get("__main__"), "__file__", None)
    return os.path.realpath(path) if path else ""


def main_has_tasks() -> bool:
    """Whether tasks are defined in ``__main__``, so that a pool must import it too."""
    from django.tasks import Task

    main = sys.modules.get("__main__")
    return any(
        isinstance(value, Task) and value.func.__module__ == "__main__"
        for value in list(vars(main).values() if main else ())
    )


def under_test() -> bool:
    """Whether Django's test environment is set up in this process."""
    utils = sys.modules.get("django.test.utils")
    return utils is not None and hasattr(utils._TestState, "saved_data")


def test_databases() -> dict[str, str]:
    """Under a test runner: alias and name of each test database that another process can open."""
    if not under_test():
        return {}
    connections = import_module("django.db").connections
    return {
        alias: str(connections[alias].settings_dict["NAME"])
        for alias in connections
        if connections[alias].vendor != "unknown"
    }


def unshared_databases() -> list[str]:
    """Under a test runner: the aliases of databases that live in this process's memory alone."""
    if not under_test():
        return []
    connections = import_module("django.db").connections
    return [
        alias
        for alias in connections
        if connections[alias].vendor == "sqlite" and connections[alias].is_in_memory_db()
    ]


def _is_open(descriptor: int) -> bool:
    try:
        os.fstat(descriptor)
    except OSError:
        return False
    return True


def _main() -> dict[str, Any]:
    data: dict[str, Any] = {**spawn.get_preparation_data("pool")}
    wanted = {"sys_path", "sys_argv", "orig_dir", "dir"}
    kept = {key: value for key, value in data.items() if key in wanted}
    # The main script is imported only where tasks or settings come from it: that of a web
    # server would cost the pool the import of the server.
    if not settings_module() or main_has_tasks():
        kept |= {key: value for key, value in data.items() if key.startswith("init_main_")}
    return kept


def _configured_values() -> dict[str, Any] | None:
    if settings_module():
        return None
    from django.conf import settings

    holder: Any = settings._wrapped
    return {name: getattr(holder, name) for name in holder.__dict__ if name.isupper()}
