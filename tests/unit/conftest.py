"""What the tests of the ring's rooms share."""

from collections.abc import Iterator

import pytest

from django_tasks_local.ring import Ring
from tests.rings import Rings


@pytest.fixture
def rings() -> Iterator[Rings]:
    """Return a ring of the test's own to which nobody is attached yet."""
    made = Rings()
    yield made
    made.close()


@pytest.fixture
def ring(rings: Rings) -> Ring:
    """Return a small ring of the test's own with this process attached as a site."""
    return rings.attach()
