"""What all crash tests need."""

import pytest

from django_tasks_local.ring import retries
from django_tasks_local.ring.shm import patience


@pytest.fixture(autouse=True)
def _pauses(monkeypatch: pytest.MonkeyPatch) -> None:
    """What was lost and is tried again does not fall due while a test runs.

    And whether a holder of the lock is dead is asked after 1 ms: there are tens of thousands.
    """
    monkeypatch.setattr(patience, "CHUNK_S", 0.001)
    monkeypatch.setattr(retries, "FIRST_PAUSE_S", 3600)
    monkeypatch.setattr(retries, "LONGEST_PAUSE_S", 3600)
