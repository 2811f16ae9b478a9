"""A unified diff, applied by what it says and not by its line numbers."""

import re
from pathlib import Path
from typing import NamedTuple


class StaleDiff(Exception):
    """A diff does not apply: the text that it changes is not there, or there twice."""


class Hunk(NamedTuple):
    """One place that a diff changes."""

    path: str
    is_new: bool  # the file
    before: str
    after: str


def hunks(diff: str) -> list[Hunk]:
    """Return the places that a diff in the form of `git diff` changes."""
    found = []
    for part in re.split(r"(?m)^diff --git .*\n", diff)[1:]:
        path = re.search(r"(?m)^\+\+\+ b/(.+)$", part)
        assert path, part
        for lines in re.split(r"(?m)^@@ .*\n", part)[1:]:
            # An editor may have taken the space from an empty line of context.
            rows = [row if row != "\n" else " \n" for row in lines.splitlines(keepends=True)]
            before = "".join(row[1:] for row in rows if row[0] in " -")
            after = "".join(row[1:] for row in rows if row[0] in " +")
            found.append(Hunk(path[1], "\n--- /dev/null\n" in f"\n{part}", before, after))
    return found


def apply(diff: str, root: Path) -> None:
    """Apply a diff to the project below `root`.

    Raises:
        StaleDiff: Which place in which file it does not fit any more.
    """
    for hunk in hunks(diff):
        path = root / hunk.path
        if hunk.is_new:
            if path.exists():
                raise StaleDiff(f"{hunk.path} is there already")
            path.write_text(hunk.after, encoding="utf-8")
            continue
        text = path.read_text(encoding="utf-8") if path.exists() else ""
        if (count := text.count(hunk.before)) != 1:
            raise StaleDiff(f"{hunk.path} has this {count} times, not once:\n{hunk.before}")
        path.write_text(text.replace(hunk.before, hunk.after), encoding="utf-8")
