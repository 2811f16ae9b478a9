"""Links between the pages, and to files of the repository."""

from pathlib import Path

import pytest

from tests.docs.pages import DOCS, OTHERS, PAGES, README, anchors, links, name_of, prose, read


def _broken(page: Path) -> list[str]:
    broken = []
    for link in links(page):
        target, _, anchor = link.partition("#")
        if "://" in target or target.startswith("mailto:"):
            continue
        path = (page.parent / target).resolve() if target else page
        if not path.exists() or (anchor and path.suffix == ".md" and anchor not in anchors(path)):
            broken.append(link)
    return broken


@pytest.mark.parametrize("page", [*PAGES, *OTHERS], ids=name_of)
def test_links_lead_somewhere(page: Path) -> None:
    """Each relative link names a file that is there, and a heading in it."""
    assert not _broken(page)


def test_every_page_is_in_the_index() -> None:
    """Whoever reads docs/index.md finds each page."""
    index = DOCS / "index.md"
    linked = {(DOCS / link.partition("#")[0]).resolve() for link in links(index)}
    assert not [name_of(page) for page in PAGES if page not in linked | {index}]
    assert README in linked


@pytest.mark.parametrize("page", [*PAGES, *OTHERS], ids=name_of)
def test_pages_are_tidy(page: Path) -> None:
    """A page has one title, no space at a line's end, and no tab."""
    assert sum(line.startswith("# ") for line in prose(page).splitlines()) == 1
    lines = enumerate(read(page).splitlines(), 1)
    assert not [number for number, line in lines if line != line.rstrip() or "\t" in line]
