"""What the documentation site is made of; `make docs` builds it, with warnings as errors."""

import re

import django_tasks_local
from django_tasks_local import exceptions
from tests.docs.pages import DOCS, read

API = DOCS / "reference" / "api.md"


def test_every_public_name_is_in_the_api_page() -> None:
    """The page asks for the docstring of each name that the package exports, and no other."""
    named = re.findall(r"^\.\. [\w:]+:: django_tasks_local\.(\w+)$", read(API), re.MULTILINE)
    assert sorted(set(named) - {"exceptions"}) == sorted(django_tasks_local.__all__)
    assert f".. automodule:: {exceptions.__name__}\n   :members:\n" in read(API)
