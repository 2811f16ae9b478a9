"""A failure in a test of a running site shows what that site had logged."""

from collections.abc import Generator
from typing import Any

import pytest

from tests.support import LOG_CHARACTERS, Site


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(
    item: pytest.Item, call: pytest.CallInfo[None]
) -> Generator[None, Any, Any]:
    """Adds the logs of the sites that a wider fixture holds open."""
    report = yield
    if report.failed:
        for site in Site.running:
            report.sections.append((f"log of {site!r}", site.log()[-LOG_CHARACTERS:]))
    return report
