"""Django's admin in this process, for a module of tests: its apps, and a database for its users."""

import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final

from django.core.checks.registry import registry
from django.core.management import call_command
from django.db import connections
from django.test import Client, override_settings

from tests.site import admin_settings

_NAMES: Final = ("INSTALLED_APPS", "MIDDLEWARE", "SECURE_CSP", "STATIC_URL", "TEMPLATES")
TASKS_AT: Final = "/admin/django_tasks_local_admin/task/"


@contextmanager
def admin_installed(database: Path | None = None) -> Iterator[None]:
    """Have the admin of tests/site/admin_settings.py, and its tables where a file is given."""
    settings = {name: getattr(admin_settings, name) for name in _NAMES}
    shared: dict[str, Any] = connections.settings["default"]
    before, checks = shared["NAME"], set(registry.registered_checks)
    others: dict[str, Any] = {
        "ALLOWED_HOSTS": ["*"],
        "ROOT_URLCONF": admin_settings.ROOT_URLCONF,
        "PASSWORD_HASHERS": ["django.contrib.auth.hashers.MD5PasswordHasher"],  # fast
    }
    with override_settings(**settings, **others):
        try:
            if database is not None:
                connections["default"].close()
                shared["NAME"] = str(database)
                call_command("migrate", verbosity=0)
            yield
        finally:
            connections["default"].close()
            shared["NAME"] = before
            registry.registered_checks = checks  # those of the apps look for the apps


def user(*permissions: str, name: str = "operator", **fields: Any) -> Any:
    """A member of the staff who has these permissions and no others."""
    from django.contrib.auth.models import Permission, User

    User.objects.filter(username=name).delete()
    made = User.objects.create_user(name, password=name, is_staff=True, **fields)
    label = "django_tasks_local_admin"
    found = Permission.objects.filter(content_type__app_label=label, codename__in=permissions)
    made.user_permissions.set(found)
    assert found.count() == len(permissions)
    return made


ALL: Final = ("view_task", "cancel_task", "retry_task")


def client_of(who: Any, **options: Any) -> Client:
    """A browser in which this user is logged in."""
    client = Client(**options)
    client.force_login(who)
    return client


def text_of(html: str) -> str:
    """What a page says, in one line, without its tags."""
    body = re.sub(r"(?s)<(script|style).*?</\1>|<[^>]*>", " ", html)
    return " ".join(body.split())
