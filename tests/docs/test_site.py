"""What the documentation site is made of; `make docs` builds it, with warnings as errors."""

import inspect
import re

import django_tasks_local
from django_tasks_local import exceptions
from tests.docs.pages import DOCS, read

API = DOCS / "reference" / "api.md"


def test_every_public_name_is_in_the_api_page() -> None:
    """The page asks for the docstring of each name that the package exports, and no other."""
    named = re.findall(r"^\.\. [\w:]+:: django_tasks_local\.(\w+)$", read(API), re.MULTILINE)
    assert sorted(set(named) - {"exceptions"}) == sorted(django_tasks_local.__all__)


def test_the_api_page_shows_no_helpers() -> None:
    """Of the exceptions' module it shows the exceptions, of the backends the methods it names."""
    helpers = [
        name
        for name, value in vars(exceptions).items()
        if inspect.isfunction(value) and name.islower() and not name.startswith("_")
        and value.__module__ == exceptions.__name__
    ]  # fmt: skip
    shown = f".. automodule:: {exceptions.__name__}\n   :members:\n"
    assert f"{shown}   :exclude-members: {', '.join(helpers)}\n" in read(API)
    assert ":inherited-members:" not in read(API)  # with it, Sphinx shows every method
