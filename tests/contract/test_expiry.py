"""RESULT_TTL and FAILURE_TTL on both backends."""

import pytest
from django.tasks.exceptions import TaskResultDoesNotExist

from django_tasks_local import results
from tests import tasks
from tests.contract.conftest import INLINE_TOO, Bench
from tests.support import wait_for

SHORT_S = 0.4


def gone(bench: Bench, result_id: str) -> bool:
    """Whether a result can no longer be read."""
    try:
        bench.backend.get_result(result_id)
    except TaskResultDoesNotExist:
        return True
    return False


@INLINE_TOO
def test_a_result_expires(bench: Bench) -> None:
    """After RESULT_TTL it does not exist, although it was read all the time."""
    bench.configure(MAX_WORKERS=1, RESULT_TTL=SHORT_S)
    result = bench.run(tasks.add, 1)
    failure = bench.run(tasks.fail)
    wait_for(lambda: gone(bench, result.id))
    with pytest.raises(TaskResultDoesNotExist, match="RESULT_TTL"):
        result.refresh()
    assert result.return_value == 1  # what was read before stays
    with pytest.raises(TaskResultDoesNotExist, match="RESULT_TTL"):
        bench.backend.save_metadata(result, {"late": True})
    assert [each.id for each in results(bench.backend.alias)] == [failure.id]
    assert not gone(bench, failure.id)


@INLINE_TOO
def test_a_failure_expires(bench: Bench) -> None:
    """After FAILURE_TTL it does not exist; what succeeded has no limit by that."""
    bench.configure(MAX_WORKERS=1, FAILURE_TTL=SHORT_S)
    result = bench.run(tasks.add, 1)
    failure = bench.run(tasks.fail)
    wait_for(lambda: gone(bench, failure.id))
    with pytest.raises(TaskResultDoesNotExist, match="FAILURE_TTL"):
        failure.refresh()
    assert not gone(bench, result.id)


@INLINE_TOO
def test_no_result_expires_by_default(bench: Bench) -> None:
    """Without the options only MAX_RESULTS counts."""
    assert bench.backend.checked_options.result_ttl is None
    assert bench.backend.checked_options.failure_ttl is None
