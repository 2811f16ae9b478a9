"""Unique tasks: what makes two of them the same, as a digest that a store compares.

A key is made of arguments, so equal arguments must have one form: in every process, in whatever
order a dict or a set holds them. Only types with such a form can be in a key.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, date, datetime, time, timedelta
from decimal import Decimal
from enum import Enum
from functools import lru_cache
from hashlib import blake2b
from pathlib import PurePath
from typing import TYPE_CHECKING, Any, Final
from uuid import UUID

from django_tasks_local.exceptions import describe, from_a_signal_handler

if TYPE_CHECKING:
    from django.tasks import Task

# What `policy(unique=…)` takes, once checked.
type Unique = bool | tuple[str, ...] | Callable[..., Any]

EXISTING: Final = "existing"
RAISE: Final = "raise"
_EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)


@dataclass(frozen=True, slots=True)
class Key:
    """What a unique task must not have in common with another one that waits or runs.

    Attributes:
        value: What it was made of: the arguments that count, or what the function returned.
        digest: 128 bits of it and of the task's path.
    """

    value: Any
    digest: bytes


def checked_unique(value: object) -> Unique:
    """Return a value for ``policy(unique=…)``.

    Raises:
        ValueError: It is none; the text says what is wanted.
    """
    if isinstance(value, bool):
        return value
    if isinstance(value, str):
        value = (value,)
    if isinstance(value, tuple) and all(isinstance(name, str) for name in value):
        return value
    if callable(value):
        return value
    raise ValueError(
        "it must be True, the name of a parameter, a tuple of such names, or a function that "
        f"returns a key, not of type {type(value).__name__}"
    )


def checked_conflict(value: object) -> str:
    """Return a value for ``policy(on_conflict=…)``.

    Raises:
        ValueError: It is none.
    """
    if isinstance(value, str) and value in (EXISTING, RAISE):
        return value
    raise ValueError(f'it must be "{EXISTING}" or "{RAISE}"')


def missing_parameter(function: Callable[..., Any], unique: Unique | None) -> str:
    """Return the first name in ``unique`` that is no parameter of ``function``; ``""`` for none."""
    if not isinstance(unique, tuple):
        return ""
    parameters = inspect.signature(function).parameters
    if any(each.kind is inspect.Parameter.VAR_KEYWORD for each in parameters.values()):
        return ""
    return next((name for name in unique if name not in parameters), "")


def key_of(
    task: Task[..., Any], unique: Unique, args: tuple[Any, ...], kwargs: dict[str, Any]
) -> Key | None:
    """Return the key of a task with these arguments; ``None`` where it is not unique.

    Args:
        task: The task.
        unique: As its policy has it.
        args: Its positional arguments.
        kwargs: Its keyword arguments.

    Raises:
        ValueError: There is none: the function raised, an argument is missing, or has no form.
    """
    if unique is False:
        return None
    try:
        value = _value(task, unique, args, kwargs)
        if value is None and callable(unique):
            return None
        text = f"{task.func.__module__}:{task.func.__qualname__} {_form(value)}"
    except Exception as error:
        if from_a_signal_handler(error):
            raise  # a time limit, say: this says nothing about the key
        raise ValueError(
            f"Task {task.module_path} is unique, and its key cannot be made: {describe(error)}."
        ) from error
    return Key(value, blake2b(text.encode("utf-8", "surrogatepass"), digest_size=16).digest())


def _value(
    task: Task[..., Any], unique: Unique, args: tuple[Any, ...], kwargs: dict[str, Any]
) -> Any:
    if callable(unique):
        return unique(*args, **kwargs)
    signature = _signature(task.func, task.takes_context)
    bound = signature.bind(*args, **kwargs)
    bound.apply_defaults()
    named: dict[str, Any] = {}
    for name, value in bound.arguments.items():
        if signature.parameters[name].kind is inspect.Parameter.VAR_KEYWORD:
            named.update(value)
        else:
            named[name] = value
    if isinstance(unique, bool):
        return named
    values = tuple(named[name] for name in unique if _is_given(name, named))
    return values[0] if len(unique) == 1 else values


def _is_given(name: str, named: dict[str, Any]) -> bool:
    if name not in named:
        raise TypeError(f"missing the argument {name!r}, which is its key")
    return True


@lru_cache(maxsize=1024)  # arbitrary: one for each unique task of the project
def _signature(function: Callable[..., Any], takes_context: bool) -> inspect.Signature:
    signature = inspect.signature(function)
    if takes_context:  # which is not among the arguments of `enqueue`
        parameters = list(signature.parameters.values())[1:]
        signature = signature.replace(parameters=parameters)
    return signature


def _form(value: object) -> str:
    """Return text that is the same for equal values of the same type, and for no others.

    Only a `Decimal` counts with its zeros, and a zero with its sign.
    """
    for types, form in _FORMS:
        if isinstance(value, types):
            return form(value)
    raise TypeError(
        f"a value of type {type(value).__name__} cannot be part of a key. Give unique the names of "
        "other parameters, or a function that returns an id"
    )


def _form_of_dict(value: dict[Any, Any]) -> str:
    return f"{{{', '.join(sorted(f'{_form(key)}: {_form(each)}' for key, each in value.items()))}}}"


def _form_of_datetime(value: datetime) -> str:
    # Of an aware one the moment counts: the database returns UTC, and `localtime` another zone.
    moment = value.isoformat() if value.utcoffset() is None else str(value - _EPOCH)
    return f"{type(value).__name__}({moment})"


# What counts of a value, by its type. The methods are those of the types themselves: a subclass,
# such as Django's SafeString, may have a `__repr__` of its own.
_FORMS: Final[tuple[tuple[Any, Callable[[Any], str]], ...]] = (
    ((type(None), bool), str),
    (Enum, lambda value: f"{type(value).__module__}.{type(value).__qualname__}.{value.name}"),
    (str, str.__repr__),
    (int, int.__repr__),
    (float, float.__repr__),
    (bytes, bytes.__repr__),
    ((list, tuple), lambda value: f"[{', '.join(map(_form, value))}]"),
    (dict, _form_of_dict),
    ((set, frozenset), lambda value: f"set({', '.join(sorted(map(_form, value)))})"),
    (datetime, _form_of_datetime),
    ((date, time), lambda value: f"{type(value).__name__}({value.isoformat()})"),
    ((timedelta, Decimal, UUID, PurePath), lambda value: f"{type(value).__name__}({str(value)!r})"),
)
