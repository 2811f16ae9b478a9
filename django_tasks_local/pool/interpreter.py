"""Which Python runs a pool: the site's own, with the site's flags."""

import os
import subprocess
import sys
from collections.abc import Iterator
from functools import cache
from multiprocessing.util import _args_from_interpreter_flags  # type: ignore[attr-defined]
from pathlib import Path
from typing import Final

from django_tasks_local.exceptions import StoreUnavailable

_VERSION: Final = f"{sys.version_info[0]}.{sys.version_info[1]}"
_WHO: Final = f"{sys.implementation.cache_tag}{sys.abiflags}"
_ASK: Final = "import sys; print(sys.implementation.cache_tag + sys.abiflags)"
# Starting an interpreter takes 20 ms; on a machine that is busy or waits for a disk, much longer.
_PATIENCE_S: Final = 30.0


def interpreter() -> list[str]:
    """Return the Python of this process, with its flags, and safe from the working directory.

    ``-P`` keeps the working directory out of ``sys.path``, where it would otherwise be the first
    place in which the new interpreter looks for modules.

    Raises:
        StoreUnavailable: There is no Python like that of this process where one should be.
    """
    flags = _args_from_interpreter_flags()
    if not sys.flags.safe_path:
        flags.append("-P")
    if _is_unbuffered():
        flags.append("-u")
    return [_find(sys.executable or "", sys.prefix, sys.base_prefix), *flags]


@cache
def _find(executable: str, prefix: str, base_prefix: str) -> str:
    """Return a Python like the one that runs this code.

    Under uWSGI and mod_wsgi ``sys.executable`` is the server, or some Python that has nothing to
    do with the site's virtual environment, so it counts only within the prefix, and by its name:
    running a server with a Python's arguments, as a check, might do anything.
    """
    tried = []
    for candidate in dict.fromkeys(_candidates(executable, prefix, base_prefix)):
        if os.access(candidate, os.X_OK) and (_runs_us(candidate) or _is_like_us(candidate)):
            return candidate
        tried.append(candidate)
    raise StoreUnavailable(
        f"no Python {_VERSION} is found to start the pool with; tried {', '.join(tried)}",
        fix="install the interpreter of this environment there (under uWSGI and mod_wsgi: the one "
        "of the virtual environment that the server is configured with)",
    )


def _candidates(executable: str, prefix: str, base_prefix: str) -> Iterator[str]:
    if _is_named_python(executable) and _is_within(executable, prefix):
        yield executable
    for folder in (prefix, base_prefix):
        for name in (f"python{_VERSION}", "python3", "python"):
            yield str(Path(folder, "bin", name))
    for other in (executable, getattr(sys, "_base_executable", None) or ""):
        if _is_named_python(other):
            yield other


def _is_named_python(path: str) -> bool:
    # Nix wraps interpreters under names such as .python3.13-wrapped.
    return os.path.basename(path).lstrip(".").startswith(("python", "pypy"))


def _is_within(path: str, prefix: str) -> bool:
    return Path(prefix) in Path(path).parents


def _runs_us(path: str) -> bool:
    """Return whether ``path`` is this process's own program; False where there is no /proc."""
    try:
        return os.path.samefile(path, "/proc/self/exe")
    except OSError:
        return False


def _is_like_us(path: str) -> bool:
    """Return whether ``path`` is a Python that can import this one's modules, compiled ones too."""
    try:
        done = subprocess.run(
            [path, "-I", "-S", "-c", _ASK],
            stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=_PATIENCE_S,
        )  # fmt: skip
    except (OSError, subprocess.SubprocessError, ValueError):
        return False
    return done.stdout.strip() == _WHO


def _is_unbuffered() -> bool:
    """Return whether this Python runs with ``-u``, which it does not pass on."""
    streams = (sys.__stdout__, sys.__stderr__)
    return any(getattr(stream, "write_through", False) for stream in streams)
