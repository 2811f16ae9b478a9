"""Fields that a later Django adds to its TaskResult."""

import os
import subprocess
import sys

import pytest

from tests.support import LONG_TIMEOUT, ROOT

SCRIPT = """
import sys
import django
django.setup()
from dataclasses import replace
from django.tasks import TaskResult, task_backends
from tests import tasks
from tests.contract.conftest import finished
task = tasks.describe_context.using(backend=sys.argv[1])
assert "metadata" in TaskResult.__dataclass_fields__
result = finished(task.enqueue())
assert not result.errors, result.errors[0].traceback
found = task.get_result(result.id)
assert found == result
assert found.metadata == {}
assert found.metadata is not result.metadata
assert found.added == "as Django has it"
found.metadata["a"] = 1
assert replace(found).metadata == {"a": 1}
task_backends[sys.argv[1]].close()
"""


@pytest.mark.parametrize("alias", ["thread", "process"])
def test_unknown_fields_have_their_defaults(alias: str, namespace: str) -> None:
    """A task with a context runs, and its result has the new fields. `.ci/run` runs all so."""
    done = subprocess.run(
        [sys.executable, "-c", SCRIPT, alias],
        env=os.environ | {
            "DTL_TESTS_ADDED_FIELD": "1",
            "DTL_TESTS_OPTIONS": f'{{"MAX_WORKERS": 1, "NAMESPACE": "{namespace}"}}',
            "PYTHONPATH": str(ROOT),
        },
        cwd=ROOT, text=True, capture_output=True, timeout=LONG_TIMEOUT,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
