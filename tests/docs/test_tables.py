"""A table of a page is shown as one."""

import re
from itertools import groupby
from pathlib import Path

import pytest

from tests.docs.pages import OTHERS, PAGES, name_of, prose

_RULE = re.compile(r"\|(?:\s*:?-+:?\s*\|)+")
_EDGE = re.compile(r"(?<!\\)\|")


@pytest.mark.parametrize("page", [*PAGES, *OTHERS], ids=name_of)
def test_tables_are_whole(page: Path) -> None:
    """Rows follow a header and its rule, and each has as many cells as these."""
    for is_table, lines in groupby(prose(page).splitlines(), lambda line: line.startswith("|")):
        if is_table:
            header, *rest = lines
            assert rest, f"rows without a header: {header}"
            assert _RULE.fullmatch(rest[0]), f"rows without a header: {header}"
            assert {len(_EDGE.findall(row)) for row in rest} == {len(_EDGE.findall(header))}
