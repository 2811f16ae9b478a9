"""Standard streams that are missing, closed, without a reader or on a full disk."""

import io
import os
import sys
from collections.abc import Callable
from typing import IO, Any

import pytest

from django_tasks_local.streams import flush_output, forgive_output, say, say_traceback
from tests.children import in_a_child


def on_a_full_disk() -> IO[str]:
    """Every write is ENOSPC."""
    return open("/dev/full", "w")


def without_reader() -> IO[str]:
    """Every write is EPIPE."""
    read_end, write_end = os.pipe()
    os.close(read_end)
    return os.fdopen(write_end, "w")


def closed() -> IO[str]:
    """An object whose file is closed."""
    with open(os.devnull, "w") as stream:
        pass
    return stream


def missing() -> None:
    """What Python has where the descriptor was closed."""
    return


BROKEN = [on_a_full_disk, without_reader, closed, missing]


@pytest.mark.parametrize("make", BROKEN)
@pytest.mark.parametrize("broken", ["stdout", "stderr"])
def test_broken_streams(
    make: Callable[[], IO[str] | None], broken: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nothing raises, and what goes well is not held up by what does not."""
    read_end, write_end = os.pipe()
    stream = make()
    with open(read_end, "rb", buffering=0) as reader, open(write_end, "w") as good:
        monkeypatch.setattr(sys, broken, stream)
        monkeypatch.setattr(sys, "stderr" if broken == "stdout" else "stdout", good)
        good.write("text")
        flush_output()
        assert reader.read(10) == b"text"
        say("a line")
        try:
            raise ValueError
        except ValueError:
            say_traceback()
        flush_output()
        if stream is not None:
            stream.close()


@pytest.mark.parametrize("make", [on_a_full_disk, without_reader])
def test_a_buffer_that_cannot_be_written_is_dropped(
    make: Callable[[], IO[str]], monkeypatch: pytest.MonkeyPatch
) -> None:
    """It does not raise again at the next flush, and the descriptor is what it was."""
    with make() as stream:
        monkeypatch.setattr(sys, "stdout", stream)
        before = os.fstat(stream.fileno())
        stream.write("lost")
        flush_output()
        stream.flush()
        assert os.path.samestat(os.fstat(stream.fileno()), before)
        stream.write("x")
        with pytest.raises(OSError, match=r"space|pipe"):
            stream.flush()
        flush_output()


def test_a_stream_without_a_descriptor(monkeypatch: pytest.MonkeyPatch) -> None:
    """What a project puts there may be any object."""

    class Refusing(io.StringIO):
        def flush(self) -> None:
            raise RuntimeError

    monkeypatch.setattr(sys, "stdout", Refusing())
    flush_output()


@pytest.mark.parametrize("write_through", [False, True])
def test_output_that_forgives(write_through: bool) -> None:
    """Prints fail on no disk and no pipe, and lines appear where they can."""

    def body() -> None:
        read_end, write_end = os.pipe()
        os.set_blocking(write_end, False)
        full = os.open("/dev/full", os.O_WRONLY)
        os.dup2(write_end, 1)
        os.dup2(full, 2)
        for name, number in (("stdout", 1), ("stderr", 2)):
            raw: Any = io.FileIO(number, "w", closefd=False)
            raw = raw if write_through else io.BufferedWriter(raw)
            setattr(sys, name, io.TextIOWrapper(raw, write_through=write_through))
        forgive_output()
        print("a line")
        assert os.read(read_end, 100) == b"a line\n"
        print("x" * 10_000, file=sys.stderr)
        for _ in range(100):
            print("x" * 10_000)  # more than the pipe takes
        os.close(read_end)
        print("x" * 10_000)
        flush_output()

    in_a_child(body)
