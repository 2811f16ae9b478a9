"""Text of tasks on a terminal: harmless, in columns, and cut to the width of a line."""

import re
import unicodedata
from datetime import UTC, datetime
from typing import Final

from django.core.management.base import OutputWrapper
from django.tasks.base import TaskError
from django.utils import timezone

from django_tasks_local.harmless import harmless as harmless

COLUMNS: Final = 80
_CUT: Final = "..."
# How many characters of one value are shown.
_LONGEST: Final = 2000


def write(stream: OutputWrapper, line: str) -> None:
    """Write a line; characters that the stream's encoding does not have become escapes."""
    encoding = getattr(stream, "encoding", None) or "utf-8"
    stream.write(line.encode(encoding, "backslashreplace").decode(encoding))


def harmless_lines(text: str) -> list[str]:
    """Do as `harmless`, for a text of several lines such as a traceback."""
    return [harmless(line.expandtabs(8)) for line in text.rstrip("\n").split("\n")]


def cut(text: str, columns: int) -> str:
    """Return a harmless text cut to so many columns, in which some characters take two."""
    if _width(text) <= columns:
        return text
    kept, left = [], columns - len(_CUT)
    for each in text:
        left -= _width(each)
        if left < 0:
            break
        kept.append(each)
    return "".join(kept) + _CUT


def cut_left(text: str, columns: int) -> str:
    """Do as `cut`, but keep the end: of an import path that says most."""
    if _width(text) <= columns:
        return text
    return _CUT + cut(text[::-1], columns)[: -len(_CUT)][::-1]


def shown(value: object) -> str:
    """Return the ``repr`` of any value, in one harmless line that is not endless."""
    try:
        text = repr(value)
    except Exception as error:
        text = f"<its repr() raised {type(error).__name__}>"
    return harmless(text, _LONGEST)


def line_of(error: TaskError) -> str:
    """Return the line of a traceback that names the exception, without its module."""
    path = error.exception_class_path
    name = path.rpartition(".")[2]
    # The last one with the smallest indent: exceptions of a group stand indented below it.
    pattern = rf"(?m)^([ |]*)(?:{re.escape(path)}|{re.escape(name)})(: .*|:?)$"
    found = list(re.finditer(pattern, error.traceback))
    if not found:
        return harmless(name)
    least = min(len(each[1]) for each in found)
    last = [each for each in found if len(each[1]) == least][-1]
    return harmless(name + last[2].rstrip(": \r"))


def span(seconds: float) -> str:
    """Return a time span in at most nine characters: ``12.3 s``, ``5 min``, ``3.5 h``, ``12 d``."""
    seconds = max(0.0, seconds)
    if seconds < 1:
        return f"{seconds * 1000:.0f} ms"
    for limit, unit, name, digits in (
        (99.95, 1, "s", 1),
        (5940, 60, "min", 0),
        (172_800, 3600, "h", 1),
    ):
        if seconds < limit:
            return f"{seconds / unit:.{digits}f} {name}"
    return f"{seconds / 86_400:,.0f} d"


def clock(ns: int) -> str:
    """Return a moment in Unix ns by the project's ``TIME_ZONE``, 19 characters; ``-`` for none."""
    if not ns:
        return "-"
    zone = timezone.get_default_timezone()
    return datetime.fromtimestamp(ns / 1e9, zone).strftime("%Y-%m-%d %H:%M:%S")


def iso(ns: int) -> str | None:
    """Return the same for programs, in UTC; ``None`` for none."""
    return datetime.fromtimestamp(ns / 1e9, UTC).isoformat() if ns else None


def _width(text: str) -> int:
    if text.isascii():
        return len(text)
    return sum(_columns(each) for each in text)


def _columns(character: str) -> int:
    if unicodedata.combining(character):
        return 0
    return 2 if unicodedata.east_asian_width(character) in "WF" else 1
