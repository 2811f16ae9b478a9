"""Whether this process is a server. A server never waits at exit for its tasks; a script does.

One sign is certain, an answered request; but a WebSocket server never sees one, and may have
enqueued long before. So other signs count as well, none of which a script shows. A process without
any sign (a bot, a consumer of messages) is a script, which may call ``close()`` before it ends.
"""

import os
import sys
import threading
from pathlib import PurePath
from types import FrameType
from typing import Final

SERVERS: Final = frozenset(
    (
        "daphne", "granian", "gunicorn", "hypercorn", "mod_wsgi-express", "pyuwsgi", "uvicorn",
        "uwsgi", "waitress", "waitress-serve",
    )
)  # fmt: skip
# Modules that a server offers inside its own interpreter alone.
EMBEDDED: Final = ("uwsgi", "mod_wsgi")

# The management command of each process, noted when it was first seen on the main thread's stack:
# at exit it is no longer there.
_commands: dict[int, str] = {}


def is_server() -> bool:
    """Return whether this process serves requests, or is about to (20 µs).

    An ASGI application made outside of a management command is a sign, a WSGI application is not:
    many scripts call ``get_wsgi_application`` in order to set Django up.
    """
    if any(name in sys.modules for name in EMBEDDED) or _program() in SERVERS:
        return True
    command = _command()
    if command == "runserver":
        # Without either, this is the parent, which only waits for files to change.
        return os.environ.get("RUN_MAIN") == "true" or "--noreload" in sys.argv
    return not command and "django.core.asgi" in sys.modules


def is_request(sender: object) -> bool:
    """Return whether a signal of Django's handlers is about a request from outside.

    Args:
        sender: The handler's class. The test client has its own, and closes responses without one.
    """
    if not isinstance(sender, type):
        return False
    client = sys.modules.get("django.test.client")
    return client is None or not issubclass(
        sender, (client.ClientHandler, client.AsyncClientHandler)
    )


def makes_an_application() -> bool:
    """Return whether this thread is making a WSGI or ASGI application."""
    names = ("get_wsgi_application", "get_asgi_application")
    return _find_frame(sys._getframe(), names) is not None


def makes_workers() -> bool:
    """Return whether this server will fork the processes that serve, and is none of them itself.

    Gunicorn that loads the application in its master (``--preload``), and uWSGI unless it is told
    to load it in each worker.
    """
    if "uwsgi" in sys.modules:
        return not sys.modules["uwsgi"].worker_id()
    in_worker = _find_frame(sys._getframe(), ("init_process",)) is not None
    return _program() == "gunicorn" and not in_worker


def forks_for_multiprocessing() -> bool:
    """Return whether this thread is being forked for a child of ``multiprocessing``."""
    return _find_frame(sys._getframe(), ("_launch",), "multiprocessing.popen_fork") is not None


def is_restarted_by_autoreload() -> bool:
    """Return whether this is the process that Django's autoreloader ends when a file is saved.

    Programs that it starts inherit the sign in its environment, but not the one in its threads.
    """
    return os.environ.get("RUN_MAIN") == "true" and any(
        thread.name == "django-main-thread" for thread in threading.enumerate()
    )


def _program() -> str:
    """Return the name of the program that this process runs, or ran before it was forked."""
    path = PurePath(sys.argv[0] if sys.argv else "")
    name = path.parent.name if path.name == "__main__.py" else path.name
    return name.removesuffix(".py")


def _command() -> str:
    """Return the management command that this process runs, "" for none."""
    pid = os.getpid()
    if pid not in _commands:
        main = sys._current_frames().get(threading.main_thread().ident or 0)
        frame = _find_frame(main, ("execute",), "django.core.management")
        if frame is None:
            return ""
        _commands[pid] = (frame.f_locals["self"].argv[1:2] or ["help"])[0]
    return _commands[pid]


def _find_frame(
    frame: FrameType | None, names: tuple[str, ...], module: str = ""
) -> FrameType | None:
    while frame is not None:
        if frame.f_code.co_name in names and (
            not module or frame.f_globals.get("__name__") == module
        ):
            return frame
        frame = frame.f_back
    return None
