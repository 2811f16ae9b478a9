"""Words of a policy without effect are warnings of `manage.py check`, task by task."""

import sys
from types import ModuleType
from typing import Any

import pytest
from django.core.checks import run_checks
from django.tasks import task
from django.test import override_settings

from django_tasks_local import fixed, policy

THREAD = "django_tasks_local.ThreadPoolBackend"
TASKS = {
    "default": {"BACKEND": THREAD},
    "retrying": {"BACKEND": THREAD, "OPTIONS": {"MAX_ATTEMPTS": 3}},
    "foreign": {"BACKEND": "django.tasks.backends.immediate.ImmediateBackend"},
}
ONCE = "the MAX_ATTEMPTS of its alias is 1: the task is tried once."
OWN = "its max_attempts is 1: the task is tried once."


@pytest.fixture(autouse=True)
def module(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    """A module for tasks, as an import leaves it."""
    made = ModuleType("policy_checks_shop")
    monkeypatch.setitem(sys.modules, made.__name__, made)
    return made


def define(module: ModuleType, alias: str = "default", **words: Any) -> Any:
    """A task `bill` there, whose function has a policy."""

    def bill() -> None:
        pass

    bill.__module__, bill.__qualname__ = module.__name__, "bill"
    with override_settings(TASKS=TASKS):
        module.bill = made = task(policy(**words)(bill), backend=alias)  # type: ignore[attr-defined]
    return made


def found() -> list[tuple[str, str]]:
    """The warnings, as id and text."""
    with override_settings(TASKS=TASKS):
        messages = [each for each in run_checks() if "policy_checks_shop" in each.msg]
    assert all(each.hint for each in messages)
    assert not any(each.is_serious() for each in messages)
    return [(str(each.id).partition(".")[2], each.msg.partition(": ")[2]) for each in messages]


@pytest.mark.parametrize(
    ("words", "number", "text"),
    [
        ({"on_conflict": "raise"}, "W002", "on_conflict='raise' has no effect, since the task is"),
        ({"retry_on": OSError}, "W003", f"retry_on has no effect, since {ONCE}"),
        ({"retry_lost": True}, "W003", f"retry_lost has no effect, since {ONCE}"),
        (
            {"max_attempts": 1, "backoff": fixed(1), "never": KeyError},
            "W003",
            f"backoff, never have no effect, since {OWN}",
        ),
        (
            {"max_attempts": 3, "retry_on": (KeyError, IndexError), "never": LookupError},
            "W005",
            "it may be tried 3 times, and is never tried again: never=(LookupError) takes back all "
            "of retry_on=(KeyError, IndexError).",
        ),
    ],
)
def test_words_without_effect(
    module: ModuleType, words: dict[str, Any], number: str, text: str
) -> None:
    """Each names the task, the words and why."""
    define(module, **words)
    ((told, message),) = found()
    assert told == number
    assert message.startswith(text)


def test_each_alias_by_itself(module: ModuleType) -> None:
    """Where the alias retries, the words count; on other backends a policy means nothing."""
    for alias, told in (("default", 1), ("retrying", 0), ("foreign", 0)):
        define(module, alias, retry_on=OSError)
        assert len(found()) == told


def test_options_without_effect() -> None:
    """What an alias itself takes back is told, whether it has tasks or not."""
    options = {"MAX_ATTEMPTS": 3, "RETRY_ON": OSError, "NEVER": [OSError, KeyError]}
    with override_settings(TASKS={"default": {"BACKEND": THREAD, "OPTIONS": options}}):
        found = [each for each in run_checks() if each.id == "django_tasks_local.W005"]
    # Tasks of other tests' modules may have their own.
    (message,) = [each for each in found if each.msg.startswith("TASKS")]
    assert message.msg == (
        "TASKS['default']['OPTIONS']: MAX_ATTEMPTS is 3, and no task without words of its own "
        "is tried again: NEVER takes back all of RETRY_ON."
    )
    assert message.hint


@pytest.mark.parametrize(
    "words",
    [
        {"on_conflict": "raise", "unique": True},
        {"unique": True},
        {"max_attempts": 2, "retry_on": OSError, "retry_lost": True},
        {"max_attempts": 2, "retry_on": OSError, "never": FileNotFoundError},
        {"max_attempts": 2, "never": Exception, "retry_lost": True},
        {"max_attempts": 2, "retry_on": ()},
        {"max_attempts": 1},
        {"retry_lost": False},
        {"timeout": 5},
    ],
    ids=str,
)
def test_words_that_count(module: ModuleType, words: dict[str, Any]) -> None:
    """Nothing is said of them."""
    define(module, **words)
    assert found() == []


def test_a_task_that_has_gone(module: ModuleType) -> None:
    """A function that no task leads to any more, as after a reload, is not looked at."""
    define(module, retry_on=OSError)
    del module.bill
    assert found() == []
