"""Rule 9: nobody is inside the mutex for long, whatever the sizes."""

from dataclasses import replace

import pytest

from tests.rings import FAR_NS, LIMITS, Rings, put, run

from .quick import Steps, count_steps


@pytest.fixture
def steps(monkeypatch: pytest.MonkeyPatch) -> Steps:
    """What is done inside from here on."""
    return count_steps(monkeypatch)


def test_a_rebuild_takes_few_steps_for_each_record(steps: Steps, rings: Rings) -> None:
    """Columns are read and written as a whole: 1.5 µs a record, of a million as well."""
    ring = rings.attach(replace(LIMITS, max_pending=2000, max_results=1000))
    for number in range(900):
        put(ring, priority=number % 7, due_ns=FAR_NS * 10**6 - number if number % 3 else 0)
    for _ in range(200):
        run(ring)
    before = ring.counts()
    ring.recover()
    assert steps.most["rebuild"] < 900 * 12
    assert ring.check() == []
    assert ring.counts() == before
