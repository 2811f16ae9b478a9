"""The model's state. Nothing is made in the database but, after ``migrate``, its permissions."""

from typing import ClassVar

from django.db import migrations, models
from django.db.migrations.operations.base import Operation


class Migration(migrations.Migration):
    """Make the state of the model `Task`."""

    initial = True
    dependencies: ClassVar[list[tuple[str, str]]] = []
    operations: ClassVar[list[Operation]] = [
        migrations.CreateModel(
            name="Task",
            fields=[
                ("id", models.CharField(max_length=36, primary_key=True, serialize=False)),
                ("path", models.CharField(max_length=200)),
            ],
            options={
                "verbose_name": "task",
                "verbose_name_plural": "tasks",
                "permissions": (
                    ("cancel_task", "Can cancel task"),
                    ("retry_task", "Can enqueue task again"),
                ),
                "managed": False,
                "default_permissions": ("view",),
            },
        ),
    ]
