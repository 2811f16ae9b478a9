"""Sample tasks that have to do with metadata."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from django.tasks import task

from tests.support import wait_for


@task(backend="immediate")
def for_immediate(a: int = 0) -> int:
    return a


@task(takes_context=True)
def notes(context: Any) -> dict[str, Any]:
    return dict(context.metadata)


@task(takes_context=True)
def write_notes(context: Any, notes: dict[str, Any], fail: bool = False) -> None:
    context.metadata.update(notes)
    if fail:
        context.metadata["list"].append("failing")
        raise ValueError("after its notes")


@task(takes_context=True)
async def async_write_notes(context: Any, notes: dict[str, Any]) -> None:
    context.metadata.update(notes)


@task(takes_context=True)
def save_notes(context: Any, gate: str) -> list[bool]:
    """Saves, and goes on when the gate is there; whether there was something to save."""
    context.metadata["step"] = 1
    modified = [context.metadata_modified]
    context.save_metadata()
    wait_for(Path(gate).exists)
    return [*modified, context.metadata_modified]


@task(takes_context=True)
async def async_save_notes(context: Any, gate: str) -> list[bool]:
    """Likewise."""
    context.metadata["step"] = 1
    modified = [context.metadata_modified]
    await context.asave_metadata()
    wait_for(Path(gate).exists)
    return [*modified, context.metadata_modified]


@task(takes_context=True)
def wait_with_context(context: Any, gate: str) -> None:
    wait_for(Path(gate).exists)


@task(takes_context=True)
def append_note(context: Any, note: int) -> None:
    context.metadata["list"].append(note)


@task(takes_context=True)
def look_at_notes(context: Any) -> bool:
    """Return whether there is anything to save."""
    modified: bool = context.metadata_modified
    return modified


@task(takes_context=True)
def save_and_return(context: Any, name: str, value: int) -> dict[str, Any]:
    context.metadata[name] = value
    context.save_metadata()
    return dict(context.task_result.metadata)


@task(takes_context=True)
async def async_save_and_return(context: Any, name: str, value: int) -> dict[str, Any]:
    context.metadata[name] = value
    await context.asave_metadata()
    return dict(context.task_result.metadata)
