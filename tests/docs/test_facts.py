"""What the reference states is what the code says."""

import argparse
import ast
import inspect
import io
import json
import re
import shlex
from datetime import timedelta
from pathlib import Path

import pytest
from django.core.management import call_command, get_commands, load_command_class
from django.core.management.base import BaseCommand
from django.tasks import task_backends
from django.test import override_settings

import django_tasks_local
from django_tasks_local import exceptions, option_table, options, progress, schedules
from django_tasks_local.ring.format import layout
from django_tasks_local.ring.format.head import inline_bytes
from django_tasks_local.ring.records import workforce
from django_tasks_local.ring.shm import patience
from tests.docs.pages import DOCS, PAGES, blocks, name_of, read, rows, section
from tests.support import ROOT

REFERENCE = DOCS / "reference"
SETTINGS = REFERENCE / "settings.md"
CHECKS = REFERENCE / "checks.md"
ERRORS = REFERENCE / "errors.md"
COMMANDS = REFERENCE / "commands.md"
LIMITS = REFERENCE / "limits.md"
RESULTS = REFERENCE / "results-and-progress.md"

# What Django gives to every command.
DJANGO_OPTIONS = {
    option
    for action in BaseCommand().create_parser("manage.py", "x")._actions
    for option in action.option_strings
}


def _row_of(name: str, option: option_table.Option) -> list[str]:
    """An option's row in the table, but for its meaning."""
    backends = "both" if len(option.kinds) > 1 else option.kinds[0]
    if option.check:
        default = getattr(option.default, "__name__", repr(option.default))
        return [f"[`{name}`](#{name.lower()})", f"`{default}`", option.values, backends]
    derived = "`None`" if option.none_means else "derived"
    default = derived if option.default is None else f"{option.default:,}"
    values = f"{option.minimum:,} to {option.maximum:,}"
    if name == "SLOT_SIZE":
        values = f"a power of two, {values}"
    elif str in option.types:
        values = "a string"
    if timedelta in option.types:
        values += ", a timedelta"
    if option.none_means:
        values += ", or `None`"
    return [f"[`{name}`](#{name.lower()})", default, values, backends]


def test_the_table_of_options_is_that_of_the_code() -> None:
    """Names, defaults, bounds and backends of all options, and a section for each."""
    documented = [row[:4] for row in rows(section(SETTINGS, "Options"))]
    assert documented == [_row_of(name, option) for name, option in option_table.OPTIONS.items()]
    for name in option_table.OPTIONS:
        assert section(SETTINGS, name).strip()


def test_the_formula_of_shm_size_is_that_of_the_code() -> None:
    """The page on sizes and the settings derive SHM_SIZE as the code does."""
    text = read(DOCS / "howto" / "size-the-segment.md")
    formula = f"2 × (`MAX_RESULTS` + `MAX_PENDING`) × (`SLOT_SIZE` + {option_table.SLOT_OVERHEAD})"
    assert formula in text
    settings = options.Options.from_params({}, "docs", "process")
    assert settings.shm_size == 32 * 2**20
    assert f"in steps of {layout.STEP_BYTES // 2**20} MiB" in text


def test_every_check_id_is_documented() -> None:
    """The ids of the checks are those of the page, and none is used twice."""
    modules = (
        "options.py", "policy_checks.py", "schedules.py", "periodic.py", "following.py",
        "contrib/admin/apps.py",
    )  # fmt: skip
    source = "\n".join(read(ROOT / "django_tasks_local" / module) for module in modules)
    source = source.replace("from __future__ import annotations", "")
    numbers = [
        argument.value
        for call in ast.walk(ast.parse(source))
        if isinstance(call, ast.Call) and getattr(call.func, "id", "") in ("_error", "Problem")
        and isinstance(argument := call.args[0], ast.Constant) and isinstance(argument.value, int)
    ]  # fmt: skip
    ids = {f"django_tasks_local.E{number:03}" for number in numbers}
    ids |= set(re.findall(r'"(django_tasks_local\.W\d{3})"', source))
    documented = [row[0] for row in rows(read(CHECKS))]
    assert documented == [f"`{number}`" for number in sorted(ids)]


def _own_exceptions() -> list[type[exceptions.LocalTasksError]]:
    found = []
    for cls in exceptions.LocalTasksError.__subclasses__():
        found += [cls, *cls.__subclasses__()]
    return sorted(found, key=lambda cls: inspect.getsourcelines(cls)[1])


def test_every_exception_is_documented() -> None:
    """The page has a section for each exception, and no other in its first table."""
    documented = [row[0] for row in rows(section(ERRORS, "Exceptions"))]
    names = [cls.__name__ for cls in _own_exceptions()]
    assert documented == [f"[`{name}`](#{name.lower()})" for name in names]


@pytest.mark.parametrize(
    "cls", [*_own_exceptions(), exceptions.TaskCancelled], ids=lambda cls: cls.__name__
)
def test_the_attributes_of_exceptions_are_documented(cls: type[BaseException]) -> None:
    """Each fact that an exception carries is in the page's table, and nothing else."""
    documented = {
        name
        for row in rows(section(ERRORS, cls.__name__))
        for name in re.findall(r"`(\w+)`", row[0])
    }
    attributes = (inspect.getdoc(cls) or "").partition("Attributes:")[2]
    assert documented == set(re.findall(r"^ {4}(\w+):", attributes, re.MULTILINE))


def test_every_public_name_is_documented() -> None:
    """What can be imported from the package is in the reference."""
    reference = "".join(read(page) for page in REFERENCE.glob("*.md"))
    assert not [
        name for name in django_tasks_local.__all__ if not re.search(rf"\b{name}\b", reference)
    ]


def _own_commands() -> set[str]:
    return {name for name, app in get_commands().items() if app == "django_tasks_local"}


def _parser(command: str) -> argparse.ArgumentParser:
    loaded = load_command_class(get_commands()[command], command)
    parser: argparse.ArgumentParser = loaded.create_parser("manage.py", command)
    return parser


def _actions_of(parser: argparse.ArgumentParser) -> dict[str, argparse.ArgumentParser]:
    for action in parser._actions:
        if isinstance(action, argparse._SubParsersAction):
            return dict(action.choices)
    return {}


def _options_of(parser: argparse.ArgumentParser) -> set[str]:
    return {name for action in parser._actions for name in action.option_strings} - DJANGO_OPTIONS


def _documented_options(title: str) -> set[str]:
    cells = [row[0] for row in rows(section(COMMANDS, title))]
    return {name for cell in cells for name in re.findall(r"`(--[\w-]+)", cell)}


def test_the_options_of_the_commands_are_documented() -> None:
    """Each option of each command is in the page, and no other."""
    common = _documented_options("local_tasks")
    actions = _actions_of(_parser("local_tasks"))
    for name, parser in actions.items():
        shared = common if name != "rings" else set()
        assert _options_of(parser) == shared | _documented_options(f"local_tasks {name}"), name
    for name in _own_commands() - {"local_tasks"}:
        assert _options_of(_parser(name)) == _documented_options(name), name
    titles = re.findall(r"^### local_tasks (\w+)$", read(COMMANDS), re.MULTILINE)
    assert titles == list(actions)


def _documented_keys(title: str) -> list[str]:
    cells = [row[0].strip("`") for row in rows(section(COMMANDS, title))]
    return cells[cells.index("--json") + 1 :]


def test_the_keys_of_the_commands_are_documented(namespace: str) -> None:
    """Those that the other actions print with `--json`: in the same order."""
    params = {
        "BACKEND": "django_tasks_local.ProcessPoolBackend",
        "OPTIONS": {"NAMESPACE": namespace},
    }
    with override_settings(TASKS={"default": params}):
        backend = task_backends["default"]
        assert isinstance(backend, django_tasks_local.ProcessPoolBackend)
        ring = backend.site().ring
        arguments = ring.encode(((), {}))
        result_id, _ = ring.enqueue(b"no.such:task", arguments, priority=0, due_ns=0)
        task = json.loads(_printed("list", "--json"))
        assert list(task) == _documented_keys("local_tasks list")
        details = json.loads(_printed("show", result_id, "--json", "--arguments"))
        more = _documented_keys("local_tasks show")
        assert list(details) == [*(key for key in task if key != "error"), *more]
        health = json.loads(_printed("health", "--json"))
        assert list(health) == _documented_keys("local_tasks health")
        (facts,) = json.loads(_printed("rings", "--json", "--ring", ring.name)).values()
        assert list(facts) == _documented_keys("local_tasks rings")
        backend.close()


def _printed(*arguments: str) -> str:
    output = io.StringIO()
    call_command("local_tasks", *arguments, stdout=output)
    return output.getvalue()


def test_the_keys_of_the_status_are_documented(namespace: str) -> None:
    """The keys that `local_tasks status --json` prints are those of the page."""
    output = _status(namespace, "--json")
    documented = [row[0].strip("`") for row in rows(section(COMMANDS, "local_tasks status"))]
    assert list(json.loads(output)["default"]) == documented[1:]


@pytest.mark.parametrize("page", PAGES, ids=name_of)
def test_commands_in_examples_exist(page: Path) -> None:
    """Commands of the package and make targets that a page shows are real."""
    makefile = read(ROOT / "Makefile")
    for block in blocks(page):
        for line in re.findall(r"^\$ (.+)$", block.text, re.MULTILINE):
            words = shlex.split(line)
            if words[:2] == ["python", "manage.py"] and words[2].startswith("local_"):
                _parser(words[2]).parse_args(words[3:])
            elif words[0] == "make":
                assert re.search(rf"^{words[1]}:", makefile, re.MULTILINE), line


def test_the_limits_are_those_of_the_code() -> None:
    """Numbers in the reference that come from the code."""
    limits = {row[0]: row[1] for row in rows(section(LIMITS, "Numbers"))}
    entries = limits["Processes attached to one ring (web workers, pools, their workers, readers)"]
    assert entries == f"{layout.ENTRIES:,}, of which workers leave {workforce.KEPT} to others"
    assert limits["Releases with processes or unfinished tasks in one ring"] == str(layout.CODES)
    assert limits["Periodic tasks of one alias"] == str(layout.ROWS) == str(schedules.MOST_ENTRIES)
    assert limits["Slots in one ring"] == f"{layout.MAX_SLOTS - 1:,}"
    assert limits["Progress message"] == f"{progress.MESSAGE_BYTES} bytes of UTF-8"
    frozen = limits["A live process that is frozen inside the lock"]
    assert f"{patience.FROZEN_S:.0f} seconds" in frozen
    interval = f"every {progress.TRACK_INTERVAL_S * 1000:.0f} milliseconds"
    assert interval in section(RESULTS, 'track(rows, total=None, message="")')


def test_the_size_of_a_slot_is_that_of_the_code() -> None:
    """What a slot holds beside its payload, and what is left by default."""
    default = option_table.OPTIONS["SLOT_SIZE"].default
    inline = inline_bytes(default)
    text = section(SETTINGS, "SLOT_SIZE")
    assert f"{default - inline} bytes are for the record itself" in text
    assert f"{inline} bytes by default" in text
    size_page = read(DOCS / "howto" / "size-the-segment.md")
    assert f"less {default - inline} bytes ({inline} bytes by default)" in size_page


def test_the_status_in_examples_is_what_the_command_prints(namespace: str) -> None:
    """Each kind of line that a page shows, but for its numbers and names."""
    printed = _status(namespace).splitlines()[1:4]
    for page in (COMMANDS, DOCS / "howto" / "size-the-segment.md"):
        shown = re.findall(r"^  (?:waiting|evicted|memory) .*$", read(page), re.MULTILINE)
        assert list(map(_shape, shown)) == list(map(_shape, printed)), page


def _status(namespace: str, *arguments: str) -> str:
    """What `local_tasks status` prints for a ring of its own."""
    params = {
        "BACKEND": "django_tasks_local.ProcessPoolBackend",
        "OPTIONS": {"NAMESPACE": namespace},
    }
    with override_settings(TASKS={"default": params}):
        backend = task_backends["default"]
        assert isinstance(backend, django_tasks_local.ProcessPoolBackend)
        backend.site()
        output = io.StringIO()
        call_command("local_tasks", "status", *arguments, stdout=output)
        backend.close()
    return output.getvalue()


def _shape(line: str) -> str:
    return re.sub(r"/dtl-\S+|[\d.,]*\d", "#", line)
