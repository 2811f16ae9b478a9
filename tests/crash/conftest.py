"""What all crash tests need."""

import pytest

from django_tasks_local.ring import retries


@pytest.fixture(autouse=True)
def patience(monkeypatch: pytest.MonkeyPatch) -> None:
    """What was lost and is tried again does not fall due while a test runs."""
    monkeypatch.setattr(retries, "FIRST_PAUSE_S", 3600)
    monkeypatch.setattr(retries, "LONGEST_PAUSE_S", 3600)
