"""Standard output and standard error, for processes on which other processes depend.

Either may be missing (``None``, where the descriptor was closed when Python started), closed, a
pipe whose reader has gone, or a file on a full disk. Nothing here raises because of that.
"""

import io
import os
import sys
import threading
import traceback
from contextlib import suppress
from typing import IO, Any, Final

# How long what standard output still holds may take on its way into a pipe, at exit.
FLUSH_S: Final = 0.5
# The streams that `unbuffer_output` has replaced, and by what.
_replaced: dict[io.TextIOWrapper, io.TextIOWrapper] = {}


class _Forgiving(io.FileIO):
    """A file that accepts everything, and drops what it cannot write."""

    def write(self, data: Any) -> int:
        try:
            written = super().write(data)
        except OSError:
            written = None
        # None: a full pipe that was set not to block.
        return memoryview(data).nbytes if written is None else written


def forgive_output() -> None:
    """Let no ``print`` in this process fail, whatever becomes of its log, and flush each line.

    For a pool: no task and no import of a project should fail because the log's disk is full or a
    ``tee`` has ended.
    """
    for name in ("stdout", "stderr"):
        stream = getattr(sys, name)
        if not isinstance(stream, io.TextIOWrapper):
            continue
        raw: Any = _Forgiving(stream.fileno(), "w", closefd=False)
        forgiving = io.TextIOWrapper(
            raw if stream.write_through else io.BufferedWriter(raw),  # as Python does, with -u too
            encoding=stream.encoding, errors=stream.errors,
            line_buffering=True, write_through=stream.write_through,
        )  # fmt: skip
        setattr(sys, name, forgiving)
        setattr(sys, f"__{name}__", forgiving)


def unbuffer_output() -> None:
    """Let standard output and standard error need no lock, for the rest of a process that ends.

    For one with daemon threads that go on printing. The interpreter stops them wherever they are,
    flushes both streams, and aborts if one of them holds the lock of the buffer. A stream without
    a buffer, like those of ``python -u``, has no lock. What the old ones hold is written first.
    """
    for name in ("stdout", "__stdout__", "stderr", "__stderr__"):
        stream = getattr(sys, name)
        if not isinstance(stream, io.TextIOWrapper) or isinstance(stream.buffer, io.RawIOBase):
            continue
        with suppress(Exception):  # it is closed
            if stream not in _replaced:
                _keep_for_ever(stream)
                _replaced[stream] = io.TextIOWrapper(
                    stream.buffer.raw,
                    encoding=stream.encoding, errors=stream.errors, write_through=True,
                )  # fmt: skip
            setattr(sys, name, _replaced[stream])
    # In a thread: another one may hold the lock, and wait for the reader of a pipe.
    flushing = threading.Thread(target=_flush_replaced, daemon=True)
    with suppress(RuntimeError):  # before Python 3.12.3 no thread starts when exit has begun
        flushing.start()
        flushing.join(FLUSH_S)


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
    """Write one line to standard error, if that is possible."""
    with suppress(Exception):
        print(text, file=sys.stderr, flush=True)


def say_traceback() -> None:
    """Write the traceback of the current exception to standard error."""
    say(traceback.format_exc().rstrip())


def _flush_replaced() -> None:
    for stream in _replaced:
        with suppress(Exception):
            stream.reconfigure(line_buffering=True)  # flushes, also later: nobody else will


def _keep_for_ever(stream: io.TextIOWrapper) -> None:
    """Add a reference that nobody gives up: to go, the stream would have to be flushed.

    ``print(flush=True)`` itself has none while it flushes.
    """
    with suppress(ImportError, AttributeError):  # built without libffi; PyPy, which does not abort
        import ctypes

        ctypes.pythonapi.Py_IncRef(ctypes.py_object(stream))


def _drop_buffer(stream: IO[Any]) -> None:
    """Flush into /dev/null: no stream has a method that only drops its buffer."""
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
