"""Who is a server, and who a script."""

import os
import subprocess
import sys
import threading
import types

import pytest
from django.core.handlers.asgi import ASGIHandler
from django.core.handlers.wsgi import WSGIHandler

from django_tasks_local.pool import serving
from django_tasks_local.pool.serving import is_request, is_restarted_by_autoreload, is_server

SAY = "from django_tasks_local.pool.serving import is_server; print(is_server())"


@pytest.mark.parametrize(
    ("program", "server"),
    [
        ("/srv/venv/bin/gunicorn", True),
        ("/srv/venv/lib/python3.13/site-packages/uvicorn/__main__.py", True),
        ("daphne", True),
        ("manage.py", False),
        ("/srv/gunicorn/job.py", False),
        ("-c", False),
        ("", False),
    ],
)
def test_known_programs(monkeypatch: pytest.MonkeyPatch, program: str, server: bool) -> None:
    """A server's own command counts before there was any request, and in what it forks."""
    monkeypatch.setattr(sys, "argv", [program])
    assert is_server() is server


def test_no_arguments_at_all(monkeypatch: pytest.MonkeyPatch) -> None:
    """An embedded interpreter may have none."""
    monkeypatch.setattr(sys, "argv", [])
    assert not is_server()


@pytest.mark.parametrize("module", ["uwsgi", "mod_wsgi"])
def test_embedded_interpreters(monkeypatch: pytest.MonkeyPatch, module: str) -> None:
    """uWSGI and mod_wsgi offer a module that nobody else has."""
    monkeypatch.setitem(sys.modules, module, types.ModuleType(module))
    assert is_server()


@pytest.mark.parametrize(("kind", "server"), [("asgi", True), ("wsgi", False)])
def test_an_application_of_its_own(kind: str, server: bool) -> None:
    """An ASGI application is a sign; many scripts make a WSGI one in order to set Django up."""
    code = f"from django.core.{kind} import get_{kind}_application; get_{kind}_application(); {SAY}"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.stdout.strip() == str(server), done.stderr


@pytest.mark.parametrize("run_main", ["", "true"])
def test_a_command_is_no_server(run_main: str) -> None:
    """Neither one that loads an application, nor one that runserver's view has started."""
    code = f"import django.core.asgi, threading; {SAY}; thread = threading.Thread(target=lambda: "
    code += f"exec({SAY!r})); thread.start(); thread.join()"
    command = [sys.executable, "-m", "django", "shell", "-c", code]
    environ = os.environ | {"RUN_MAIN": run_main}
    done = subprocess.run(command, env=environ, capture_output=True, text=True)
    assert done.stdout.split()[-2:] == ["False", "False"], done.stderr


@pytest.mark.parametrize(
    ("run_main", "argument", "server"),
    [("true", "", True), ("", "--noreload", True), ("", "", False)],
)
def test_runserver(
    monkeypatch: pytest.MonkeyPatch, run_main: str, argument: str, server: bool
) -> None:
    """The process that autoreload restarts, or the only one; not the one that restarts it."""
    monkeypatch.setattr(serving, "_commands", {os.getpid(): "runserver"})
    monkeypatch.setenv("RUN_MAIN", run_main)
    monkeypatch.setattr(sys, "argv", ["manage.py", "runserver", argument])
    assert is_server() is server


def test_requests() -> None:
    """Those of Django's test client come from nobody."""
    from django.test.client import AsyncClientHandler, ClientHandler

    assert is_request(WSGIHandler)
    assert is_request(ASGIHandler)
    assert not is_request(ClientHandler)
    assert not is_request(AsyncClientHandler)
    assert not is_request(None)


def test_autoreload(monkeypatch: pytest.MonkeyPatch) -> None:
    """Its variable is inherited by everything; its thread is not."""
    assert not is_restarted_by_autoreload()
    monkeypatch.setenv("RUN_MAIN", "true")
    assert not is_restarted_by_autoreload()
    end = threading.Event()
    thread = threading.Thread(target=end.wait, name="django-main-thread", daemon=True)
    thread.start()
    try:
        assert is_restarted_by_autoreload()
    finally:
        end.set()
        thread.join()
    monkeypatch.delenv("RUN_MAIN")
    assert not is_restarted_by_autoreload()
