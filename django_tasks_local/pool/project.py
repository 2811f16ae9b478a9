"""What a pool must know to import the project as its site did, and how the pool gets it.

It comes in a nameless file on standard input, not on the command line: settings hold secrets.
"""

import os
import pickle
import stat
import sys
from dataclasses import dataclass, field
from multiprocessing import spawn
from typing import Any, Final

from django_tasks_local import under_test
from django_tasks_local.exceptions import StoreUnavailable

from .main_script import DIRECTORY, main_has_tasks, main_path, main_script, real_path

# The main script that a pool is importing now, "" for none.
_state = {"importing main": ""}
# Connections to it fail with this name in the database's error. Its directory does not exist, or
# SQLite would make the file.
NO_TEST_DATABASE: Final = "/no test database existed/when the pool started"
# What a pool was told; empty in every other process.
_told: list["Preparation"] = []


@dataclass(frozen=True)
class Preparation:
    """How one site imports its project.

    Attributes:
        namespace: The default namespace, for aliases whose options name none.
        path: The settings file, and the main script where tasks are defined in it.
        main: How to prepare ``sys.argv`` and ``__main__``, in the form that ``multiprocessing``
            uses for its own children.
        module: The settings module that the site has loaded, "" for none.
        settings: The values of ``settings.configure()``, None where there is a settings module.
        databases: Under a test runner: the names of the test databases.
        run: The test run that the site belongs to, "" for none.
        debug: In a test run: the value of ``settings.DEBUG``.
        output_owner: The serial of the script whose piped output the pool inherits; else 0.
        provisional: A script has started the pool, which hands over to one that a server starts.
    """

    namespace: str
    path: str
    main: dict[str, Any] = field(default_factory=dict)
    module: str = ""
    settings: dict[str, Any] | None = None
    databases: dict[str, str] = field(default_factory=dict)
    output_owner: int = 0
    run: str = ""
    debug: bool = False
    provisional: bool = False

    @classmethod
    def of_this_process(
        cls, namespace: str, path: str, *, output_owner: int = 0, provisional: bool = False
    ) -> "Preparation":
        """Return what a pool that this process starts must know."""
        return cls(
            namespace, path, _main(), settings_module(), _configured_values(),
            under_test.databases(), output_owner, under_test.test_run(),
            bool(getattr(_base_settings(), "DEBUG", False)),
            provisional or bool(_told and _told[0].provisional),
        )  # fmt: skip

    def dumps(self) -> bytes:
        """Return what the pool reads from its standard input.

        Raises:
            StoreUnavailable: A value of ``settings.configure()`` cannot be pickled.
        """
        for name, value in (self.settings or {}).items():
            try:
                pickle.dumps(value)
            except Exception as error:
                raise StoreUnavailable(
                    f"settings.{name} cannot be pickled ({error}), so the pool cannot get it",
                    fix="put the settings into a module and set DJANGO_SETTINGS_MODULE",
                ) from error
        return pickle.dumps(self)

    def apply(self) -> None:
        """Import the project in a fresh interpreter: ``__main__``, settings, setup."""
        _told[:] = [self]
        script = self.main.get("init_main_from_path") or self.main.get("init_main_from_name", "")
        _state["importing main"] = script
        try:
            spawn.prepare(dict(self.main))
        finally:
            _state["importing main"] = ""
        import django
        from django.conf import settings

        if self.module:  # what the site has loaded, whatever the variable says now
            os.environ["DJANGO_SETTINGS_MODULE"] = self.module
        if not settings.configured and self.settings is not None:
            settings.configure(**self.settings)
        for alias, name in self.databases.items():
            database = settings.DATABASES[alias]
            # If no test has used this alias yet, a task must not find the real database there.
            real = self.settings is None and str(database["NAME"]) == name
            real = real and database.get("TEST", {}).get("NAME") != name
            database["NAME"] = NO_TEST_DATABASE if real else name
        django.setup()
        if self.run:
            under_test.join(self.run, debug=self.debug)


def output_is_piped() -> bool:
    """Return whether another process reads what this process writes, and waits for its end."""
    modes = [os.fstat(descriptor).st_mode for descriptor in (1, 2) if _is_open(descriptor)]
    return any(stat.S_ISFIFO(mode) or stat.S_ISSOCK(mode) for mode in modes)


def in_pool() -> bool:
    """Return whether a site has started this process, or its pool, to run tasks."""
    return bool(_told)


def refuse_unguarded_main() -> None:
    """Check that this is not a pool that is importing its site's main script.

    Raises:
        RuntimeError: It is; nothing may use a backend then.
    """
    if script := _state["importing main"]:
        raise RuntimeError(
            f"A task backend was used while the pool imports the main script {script}. Guard what "
            'the script does with: if __name__ == "__main__":'
        )


def directory() -> str:
    """Return the working directory in which this process has loaded the project."""
    return DIRECTORY or "/"


def import_paths() -> list[str]:
    """Return ``sys.path`` for another process: absolute, and without what imports ignore."""
    paths: list[object] = [*sys.path]
    texts = (path for path in paths if isinstance(path, str))
    # If the working directory is gone, so are paths relative to it.
    return [
        os.path.normpath(os.path.join(DIRECTORY, p)) for p in texts if p[:1] == "/" or DIRECTORY
    ]


def environment() -> dict[str, str]:
    """Return a pool's environment: that of its site, with the settings that the site has loaded."""
    found = dict(os.environ)
    found.pop("RUN_MAIN", None)  # the pool is not what runserver's autoreload restarts
    if module := settings_module():
        found["DJANGO_SETTINGS_MODULE"] = module
    return found


def settings_path() -> str:
    """Return the file that this process's settings come from, "" for none."""
    return real_path(sys.modules.get(settings_module()))


def settings_module() -> str:
    """Return the dotted name of the settings module, "" after ``settings.configure()``."""
    return getattr(_base_settings(), "SETTINGS_MODULE", None) or ""


def needs_main() -> bool:
    """Return whether this process's pools import the main script, and so find what it defines.

    They do only where tasks or settings come from it: with a web server's main script, the pool
    would import the server.
    """
    return any(key.startswith("init_main_") for key in _main())


def site_path() -> str:
    """Return what identifies a site's code: its settings file, and the main script if it counts."""
    if _told:
        return _told[0].path
    path = settings_path()
    if not settings_module() or main_has_tasks():
        path = f"{path}:{main_path()}"
    return path


def _is_open(descriptor: int) -> bool:
    try:
        os.fstat(descriptor)
    except OSError:
        return False
    return True


def _base_settings() -> Any:
    """Return the settings below all overrides: a module's, or those of ``settings.configure()``."""
    from django.conf import Settings, UserSettingsHolder, settings

    holder: Any = settings._wrapped
    while isinstance(getattr(holder, "default_settings", None), Settings | UserSettingsHolder):
        holder = holder.default_settings
    return holder


def _main() -> dict[str, Any]:
    if _told:  # a worker that starts another alias's pool: the same project
        return _told[0].main
    main: dict[str, Any] = {"sys_argv": sys.argv}
    if not settings_module() or main_has_tasks():
        main |= main_script()
    return main


def _configured_values() -> dict[str, Any] | None:
    if settings_module():
        return None
    holder = _base_settings()
    return {name: getattr(holder, name) for name in holder.__dict__ if name.isupper()}
