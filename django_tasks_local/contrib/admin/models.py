"""What the admin needs a model for: a place in its index, permissions, and entries of its log."""

from django.db import models
from django.utils.translation import gettext_lazy as _


class Task(models.Model):
    """A task, as permissions and log entries name it. It is in no database."""

    id: "models.CharField[str, str]" = models.CharField(primary_key=True, max_length=36)
    path: "models.CharField[str, str]" = models.CharField(max_length=200)

    class Meta:
        app_label = "django_tasks_local_admin"  # so that it imports where the app is not installed
        managed = False
        default_permissions = ("view",)
        permissions = (
            ("cancel_task", "Can cancel task"),
            ("retry_task", "Can enqueue task again"),
        )
        verbose_name = _("task")
        verbose_name_plural = _("tasks")

    def __str__(self) -> str:
        return self.path
