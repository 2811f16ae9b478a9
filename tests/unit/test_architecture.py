"""Which way imports point: down, and never in a circle. Imports inside functions count too."""

import ast
from collections.abc import Iterator
from graphlib import CycleError, TopologicalSorter
from pathlib import Path

import pytest

from tests.support import ROOT

PACKAGE = "django_tasks_local"

# From the bottom up. A module imports from floors below its own, and from its own folder. A name
# stands for a module or for all of a folder; the longest that fits decides.
FLOORS: tuple[tuple[str, ...], ...] = (
    (
        "backoff",
        "exceptions",
        "harmless",
        "heap",
        "interruptions",
        "log_lines",
        "moments",
        "polite_lock",
        "progress",
        "signals",
        "streams",
        "ties",
        "typing",
        "under_test",
        "weight",
    ),
    ("store", "attempts", "timings"),
    ("retrying", "schedules", "task_connections", "unique"),
    ("option_table",),
    ("options", "own_backend", "policies", "policy_checks", "stopping", "waiting"),
    ("ring.door", "ring.format"),
    ("ring.shm",),
    ("ring.records",),
    ("ring.recovery",),
    ("ring.settling",),
    ("ring.operations", "ring.audit", "ring.batch", "ring.metadata"),
    (
        "ring.enrolment",
        "ring.look",
        "ring.losses",
        "ring.parts",
        "ring.refusals",
        "ring.retries",
        "ring.stops",
    ),
    ("ring.counters", "ring.holders"),
    ("ring.chaining", "ring.upkeep"),
    ("ring.attachment", "ring.firing", "ring.saving"),
    ("ring.bulk",),
    ("ring.ring",),
    ("ring",),
    ("lifetimes",),
    ("memory_record",),
    ("memory_bulk", "memory_finished", "memory_order", "memory_ties", "memory_waits"),
    ("memory_listing",),
    ("memory",),
    ("metadata",),
    ("naming", "tracing"),
    ("pickled_result",),
    ("result",),
    ("chains", "following"),
    ("bulk", "groups", "listing", "on_commit", "periodic"),
    ("again",),
    ("cancelling",),
    ("announce",),
    ("execution",),
    ("pool",),
    ("backends",),
    ("inspection", "test"),
    ("contrib", "management", "apps", ""),
    ("views",),
)
# The rest of the package sees the ring through its door.
RING, DOOR = "ring", {"ring"}


def name_of(path: Path) -> str:
    parts = path.relative_to(ROOT / PACKAGE).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


MODULES = {
    name_of(path): path
    for path in sorted((ROOT / PACKAGE).rglob("*.py"))
    if "__pycache__" not in path.parts
}


def floor_of(module: str) -> int:
    """The floor whose name fits the module best."""
    fitting = [
        (len(name), number)
        for number, names in enumerate(FLOORS)
        for name in names
        if module == name or module.startswith(f"{name}.")
    ]
    assert fitting, f"{module} stands on no floor: give it one in FLOORS"
    return max(fitting)[1]


def imports_of(module: str) -> Iterator[tuple[str, int]]:
    """The package's modules that `module` imports anywhere, each with the line."""
    path = MODULES[module]
    package = ([] if path.name == "__init__.py" and not module else module.split("."))[
        : None if path.name == "__init__.py" else -1
    ]
    for node in ast.walk(ast.parse(path.read_text("utf-8"))):
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            above = [PACKAGE, *package][: len(package) + 2 - node.level] if node.level else []
            base = ".".join([*above, *filter(None, [node.module])])
            names = [f"{base}.{alias.name}" for alias in node.names]
        else:
            continue
        for name in names:
            if f"{name}.".startswith(f"{PACKAGE}."):
                inner = name.removeprefix(PACKAGE).removeprefix(".")
                # Either a module, or a name in one.
                yield (inner if inner in MODULES else inner.rpartition(".")[0]), node.lineno


def _is_front_of(module: str, found: str) -> bool:
    """Whether a package's front names what is inside it, which it imports when first asked for."""
    is_front = MODULES[module].name == "__init__.py"
    return is_front and (not module or found.startswith(f"{module}."))


def folder_of(module: str) -> str:
    return module if MODULES[module].name == "__init__.py" else module.rpartition(".")[0]


@pytest.mark.parametrize("module", MODULES)
def test_imports_point_down(module: str) -> None:
    """A module imports from the floors below, and from beside it in its own folder."""
    upward = [
        f"line {line}: {found or PACKAGE}"
        for found, line in imports_of(module)
        if not _is_front_of(module, found)
        and (
            floor_of(found) > floor_of(module)
            or (floor_of(found) == floor_of(module) and folder_of(found) != folder_of(module))
        )
    ]
    assert not upward


def test_no_circle() -> None:
    """No module imports itself, by whatever way round."""
    graph = {
        module: {found for found, _ in imports_of(module) if found != module}
        for module, path in MODULES.items()
        if path.name != "__init__.py"
    }
    try:
        list(TopologicalSorter(graph).static_order())
    except CycleError as error:
        pytest.fail(f"imports in a circle: {' -> '.join(error.args[1])}")


@pytest.mark.parametrize("module", [m for m in MODULES if m and m.split(".")[0] != RING])
def test_the_ring_has_one_door(module: str) -> None:
    """Outside its folder nobody imports a module of the ring, so nobody there knows an offset."""
    inside = {found for found, _ in imports_of(module) if found.split(".")[0] == RING}
    assert inside <= DOOR


def test_the_map_has_every_module() -> None:
    """CONTRIBUTING.md says of each module, by its path, what it is for."""
    text = (ROOT / "CONTRIBUTING.md").read_text("utf-8")
    paths = [str(path.relative_to(ROOT / PACKAGE)) for path in MODULES.values()]
    missing = [path for path in paths if f"`{path}`" not in text and not path.endswith("__.py")]
    assert not missing


def test_every_floor_is_there() -> None:
    """No name in FLOORS is left over from a module that has gone."""
    assert not [name for names in FLOORS for name in names if name not in MODULES]
