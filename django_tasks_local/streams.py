"""Standard output and standard error, for processes on which others depend.

Either may be missing (``None``, where the descriptor was closed when Python started), closed, a
pipe whose reader has gone, or a file on a full disk. Nothing here raises because of that.
"""

import os
import sys
import traceback
from contextlib import suppress
from typing import IO, Any


def flush_output() -> None:
    """Write what standard output and standard error still hold; drop what cannot be written.

    A buffer that cannot be written would otherwise raise again at every later flush, and be copied
    into every forked child.
    """
    for stream in (sys.stdout, sys.stderr):
        try:
            if stream is not None:
                stream.flush()
        except Exception:
            _drop_buffer(stream)


def say(text: str) -> None:
    """Write one line to standard error, if there is one that takes it."""
    with suppress(Exception):
        print(text, file=sys.stderr, flush=True)


def say_traceback() -> None:
    """Write the exception that is being handled to standard error."""
    say(traceback.format_exc().rstrip())


def _drop_buffer(stream: IO[Any]) -> None:
    """Flush into /dev/null: no stream has a method that only forgets."""
    with suppress(Exception):  # no descriptor behind it, or no descriptor free for the exchange
        descriptor = stream.fileno()
        null = os.open(os.devnull, os.O_WRONLY | os.O_CLOEXEC)
        try:
            kept = os.dup(descriptor)
            try:
                os.dup2(null, descriptor)
                stream.flush()
            finally:
                os.dup2(kept, descriptor)
                os.close(kept)
        finally:
            os.close(null)
