"""What a pool must know to import the project as its site did, and how it gets there.

It goes through a nameless file on standard input, not the command line: settings hold secrets.
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

# The main script that a pool is just importing, "" for none.
_state = {"importing main": ""}
# What connects to it fails and says so, in the database's words. In no directory that exists, or
# SQLite would make it.
NO_TEST_DATABASE: Final = "/no test database existed/when the pool started"
# What a pool was told; empty in every other process.
_told: list["Preparation"] = []


@dataclass(frozen=True)
class Preparation:
    """One site's way to its project.

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
        output_owner: The serial of the script whose piped output the pool inherits, 0 for none.
        provisional: A script has started the pool: it hands over to one that a server starts.
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
        """What a pool that this process starts must know."""
        return cls(
            namespace, path, _main(), settings_module(), _configured_values(),
            under_test.databases(), output_owner, under_test.test_run(),
            bool(getattr(_base_settings(), "DEBUG", False)),
            provisional or bool(_told and _told[0].provisional),
        )  # fmt: skip

    def dumps(self) -> bytes:
        """What the pool reads from its standard input.

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
        """Imports the project in a fresh interpreter: ``__main__``, settings, setup."""
        _told[:] = [self]
        script = self.main.get("init_main_from_path") or self.main.get("init_main_from_name", "")
        _state["importing main"] = script
        try:
            spawn.prepare(dict(self.main))
        finally:
            _state["importing main"] = ""
        import django
        from django.conf import settings

        if self.module:  # the site has loaded it, whatever became of the variable since
            os.environ["DJANGO_SETTINGS_MODULE"] = self.module
        if not settings.configured and self.settings is not None:
            settings.configure(**self.settings)
        for alias, name in self.databases.items():
            database = settings.DATABASES[alias]
            # No test has used this alias yet? Then a task must not find the real one there.
            real = self.settings is None and str(database["NAME"]) == name
            real = real and database.get("TEST", {}).get("NAME") != name
            database["NAME"] = NO_TEST_DATABASE if real else name
        django.setup()
        if self.run:
            under_test.join(self.run, debug=self.debug)


def output_is_piped() -> bool:
    """Whether somebody reads what this process writes, and waits for the end of it."""
    modes = [os.fstat(descriptor).st_mode for descriptor in (1, 2) if _is_open(descriptor)]
    return any(stat.S_ISFIFO(mode) or stat.S_ISSOCK(mode) for mode in modes)


def in_pool() -> bool:
    """Whether a site has started this process, or its pool, to run tasks."""
    return bool(_told)


def refuse_unguarded_main() -> None:
    """Looks whether this is a pool that is just importing its site's main script.

    Raises:
        RuntimeError: It is; nothing may use a backend then.
    """
    if script := _state["importing main"]:
        raise RuntimeError(
            f"A task backend was used while the pool imports the main script {script}. Guard what "
            'the script does with: if __name__ == "__main__":'
        )


def directory() -> str:
    """The working directory in which this process has loaded the project."""
    return DIRECTORY or "/"


def import_paths() -> list[str]:
    """``sys.path`` for another process: absolute, and without what no import looks at."""
    paths: list[object] = [*sys.path]
    texts = (path for path in paths if isinstance(path, str))
    # Where the working directory is gone, so is what is relative to it.
    return [
        os.path.normpath(os.path.join(DIRECTORY, p)) for p in texts if p[:1] == "/" or DIRECTORY
    ]


def environment() -> dict[str, str]:
    """The environment of a pool: that of its site, with the settings that the site has loaded."""
    found = dict(os.environ)
    found.pop("RUN_MAIN", None)  # the pool is not what runserver's autoreload restarts
    if module := settings_module():
        found["DJANGO_SETTINGS_MODULE"] = module
    return found


def settings_path() -> str:
    """Where this process's settings come from: a file, or "" for none."""
    return real_path(sys.modules.get(settings_module()))


def settings_module() -> str:
    """The dotted name of the settings module, "" after ``settings.configure()``."""
    return getattr(_base_settings(), "SETTINGS_MODULE", None) or ""


def needs_main() -> bool:
    """Whether this process's pools import the main script, and find there what is defined in it.

    Only where tasks or settings come from it: that of a web server would cost the pool the import
    of the server.
    """
    return any(key.startswith("init_main_") for key in _main())


def site_path() -> str:
    """What a site's code is known by: its settings' file, and the main script where that counts."""
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
    """The settings below all overrides: of a module, or those of ``settings.configure()``."""
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
