"""Files put together from pages of many moments: nothing crashes, hangs, or is told wrongly."""

import pytest

from tests.crash.powercut import run


@pytest.mark.parametrize("sync", [False, True])
def test_power_cuts(sync: bool) -> None:
    """What is whole is kept; with SYNC all that was promised. `make powercut` does it for long."""
    assert run(cuts=30, seed=8, sync=sync) == []
