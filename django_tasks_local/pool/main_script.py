"""The site's main script: whether a pool can import it, and what to refuse where it cannot."""

import os
import pickle
import sys
from types import FunctionType, ModuleType
from typing import Any, Final

from django.tasks import Task
from django.tasks.exceptions import InvalidTask

_NAME: Final = b"__main__"
# A piece of a pickle as long as this is a user's bytes or text, not opcodes.
_OPCODES_BYTES: Final = 2**18


def working_directory() -> str:
    """Return this process's working directory, "" if it was removed."""
    try:
        return os.getcwd()
    except OSError:
        return ""


# From when this process was loaded, like the rest of its project: a script may go elsewhere later.
DIRECTORY: Final = working_directory()


def real_path(module: ModuleType | None) -> str:
    """Return the file of a module, "" for none."""
    path = _file(module)
    return os.path.realpath(os.path.join(DIRECTORY, path)) if path else ""


def main_path() -> str:
    """Return the main script's real path, "" for an interactive interpreter."""
    return real_path(sys.modules.get("__main__"))


def _file(module: ModuleType | None) -> str:
    path = getattr(module, "__file__", None)
    if path is None and not hasattr(sys, "ps1"):
        # Python takes `__file__` from a main script whose code has ended, although its threads and
        # its exit functions are still to come; the loader keeps it. Not at a prompt (`python -i`):
        # what is defined there is in no file, and the loader may be that of PYTHONSTARTUP.
        path = getattr(getattr(module, "__loader__", None), "path", None)
    return path or ""


def main_script() -> dict[str, str]:
    """Return how another process imports the main script, in the form that multiprocessing uses.

    It is empty where that is impossible: code from standard input, ``-c`` or a prompt has no place
    to import it from, and the ``__main__`` of a package or an archive is not a script's module.
    """
    main = sys.modules.get("__main__")
    name = getattr(getattr(main, "__spec__", None), "name", None)
    if name is not None:
        return {} if name.rpartition(".")[2] == "__main__" else {"init_main_from_name": name}
    path = _file(main)
    path = os.path.normpath(os.path.join(DIRECTORY, path)) if path else ""
    return {"init_main_from_path": path} if os.path.isfile(path) else {}


def main_has_tasks() -> bool:
    """Return whether tasks are defined in ``__main__``, so that a pool must import it too."""
    main = sys.modules.get("__main__")
    return any(
        isinstance(value, Task) and value.func.__module__ == "__main__"
        for value in list(vars(main).values() if main else ())
    )


def where_main_is_from() -> str:
    """Return a description of what runs as ``__main__``."""
    path = _file(sys.modules.get("__main__"))
    if path == "<stdin>":
        return "standard input"
    return path or "-c or a prompt"


def names_main(encoded: Any) -> bool:
    """Return whether pickled arguments may name something in ``__main__`` (0.5 µs if small)."""
    if isinstance(encoded, bytes):
        return _NAME in encoded
    return any(_NAME in part for part in encoded.parts if len(part) < _OPCODES_BYTES)


def refuse_main(value: object) -> None:
    """Check that ``value`` holds no class or function of ``__main__``; a text may name one.

    Raises:
        pickle.PicklingError: It holds one, which the text names.
    """
    _Finder(_Nowhere()).dump(value)


def refuse_main_task(path: str) -> None:
    """Check that a pool could import a task of ``__main__``.

    Raises:
        InvalidTask: It could not.
    """
    if not main_script():
        raise InvalidTask(
            f"Task {path} is defined in {where_main_is_from()}, from where a pool cannot import "
            "it. Define it in a module, or put the script into a file and guard what it does with: "
            'if __name__ == "__main__":'
        )


class _Nowhere:
    def write(self, piece: object) -> None:
        pass


class _Finder(pickle.Pickler):
    def __init__(self, file: Any) -> None:
        super().__init__(file, 5)

    def reducer_override(self, obj: Any) -> Any:
        if isinstance(obj, type | FunctionType) and obj.__module__ == "__main__":
            raise pickle.PicklingError(
                f"{obj.__qualname__} is defined in the main script ({where_main_is_from()}), which "
                "the pool does not import; define it in a module that both can import"
            )
        return NotImplemented
