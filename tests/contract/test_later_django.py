"""A later Django: its metadata, and fields that it adds to its TaskResult."""

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
from django.tasks import Task, TaskContext, TaskResult, task_backends
from tests import tasks
from tests.contract.conftest import finished
assert "raw_metadata" in TaskResult.__dataclass_fields__
task = tasks.describe_context.using(backend=sys.argv[1], metadata={"a": 1, "_b": [2]})
assert isinstance(task, Task)
assert type(task).__dataclass_fields__ == Task.__dataclass_fields__
result = finished(task.enqueue())
assert not result.errors, result.errors[0].traceback
found = task.get_result(result.id)
assert found == result
assert found.task == task
assert found.metadata == {"a": 1}
assert found.raw_metadata == replace(found).raw_metadata == {"a": 1, "_b": [2]}
assert found.added == "as Django has it"
context = TaskContext(task_result=found)
context.metadata["c"] = 3
context.save_metadata()
assert found.metadata == {"a": 1, "c": 3}
assert task.get_result(result.id).raw_metadata == {"a": 1, "_b": [2], "c": 3}
task_backends[sys.argv[1]].close()
"""


@pytest.mark.parametrize("alias", ["thread", "process"])
def test_with_djangos_own_metadata(alias: str, namespace: str) -> None:
    """Django's own classes do, and unknown fields have defaults. `.ci/run` runs all so."""
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
