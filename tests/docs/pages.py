"""What tests need to know of a page of Markdown."""

import re
import unicodedata
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

from tests.support import ROOT

DOCS = ROOT / "docs"
README = ROOT / "README.md"
PAGES = [README, *sorted(DOCS.rglob("*.md"))]
# For those who work on the project: their links hold too.
OTHERS = [ROOT / f"{name}.md" for name in ("CHANGELOG", "CONTRIBUTING", "SECURITY")]

_BLOCK = re.compile(r"^```([\w{}-]*)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
_FILE_NAME = re.compile(r"(?:#|<!--) (?P<path>[\w/.-]+\.(?:py|html))(?P<appended>, at the end)?\b")
_LINK = re.compile(r"(?<!!)\[[^\]]*\]\(([^)\s]+)\)|!\[[^\]]*\]\(([^)\s]+)\)")


class Block(NamedTuple):
    """A fenced block: its language and its lines."""

    language: str
    text: str

    @property
    def path(self) -> str:
        """The file that a comment in the first line names, "" for none."""
        found = _FILE_NAME.match(self.text)
        return found["path"] if found else ""

    @property
    def is_appended(self) -> bool:
        """Whether it belongs at the end of a file that is there."""
        found = _FILE_NAME.match(self.text)
        return bool(found and found["appended"])


def name_of(path: Path) -> str:
    """Return the path below the repository, for a test's id."""
    return str(path.relative_to(ROOT))


def read(page: Path) -> str:
    return page.read_text(encoding="utf-8")


def blocks(page: Path) -> list[Block]:
    """All fenced blocks of a page."""
    return [Block(*found.groups()) for found in _BLOCK.finditer(read(page))]


def prose(page: Path) -> str:
    """Return a page without its fenced blocks."""
    return _BLOCK.sub("", read(page))


def links(page: Path) -> Iterator[str]:
    """Return the targets of all links and images."""
    for found in _LINK.finditer(re.sub(r"`[^`\n]*`", "`", prose(page))):
        yield found[1] or found[2]


def anchors(page: Path) -> set[str]:
    """Return the anchors that GitHub makes of a page's headings."""
    return {_slug(title) for title in re.findall(r"^#+ (.+)$", prose(page), re.MULTILINE)}


def section(page: Path, title: str) -> str:
    """Return what stands under a heading, up to the next one of any level."""
    after = re.split(rf"^#+ {re.escape(title)}$", read(page), maxsplit=1, flags=re.MULTILINE)
    assert len(after) == 2, f"{name_of(page)} has no section {title!r}"
    return re.split(r"^#+ ", after[1], maxsplit=1, flags=re.MULTILINE)[0]


def rows(text: str) -> list[list[str]]:
    """Return the cells of all tables in a text, without their heads."""
    table = [
        [cell.strip() for cell in line.strip("|").split("|")]
        for line in text.splitlines()
        if line.startswith("|")
    ]
    rule = [all(set(cell) <= set("-:") and cell for cell in row) for row in table]
    return [
        row
        for number, row in enumerate(table)
        if not rule[number] and not (number + 1 < len(rule) and rule[number + 1])
    ]


def _slug(title: str) -> str:
    text = re.sub(r"\[([^\]]*)\]\([^)]*\)", r"\1", title).replace("`", "").lower()
    kept = (c for c in text if c in " -_" or unicodedata.category(c)[0] in "LN")
    return "".join(kept).strip().replace(" ", "-")
