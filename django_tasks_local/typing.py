"""Django's ``task``, ``Task`` and ``TaskResult``, for type checkers with what the backends add.

At run time they are Django's own. Their types are in ``typing.pyi``: ``run_after`` may be a
``timedelta``, and a result has ``progress``.
"""

from django.tasks import Task, TaskResult, task

__all__ = ["Task", "TaskResult", "task"]
