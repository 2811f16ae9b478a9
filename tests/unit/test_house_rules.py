"""The rules of CONTRIBUTING.md that no linter knows."""

import ast
import importlib
import inspect
import re
import tomllib
from collections.abc import Iterator
from pathlib import Path

import pytest

import django_tasks_local
from tests.admin_project import admin_installed
from tests.support import ROOT

# A module that is longer does more than one thing. The aim is 350; what lies between is slack.
LINES = 400

PACKAGE = ROOT / "django_tasks_local"
TESTS = ROOT / "tests"
# Where a pause is the purpose: the one waiting loop, tasks that take a while, a site's slow views.
MAY_PAUSE = {TESTS / name for name in ("support.py", "tasks.py", "conftest.py")} | {
    TESTS / f"{which}_tasks.py" for which in ("stopped", "retried", "foreign")
}


def files(folder: Path, pattern: str = "*.py") -> list[Path]:
    """The Python files below a folder, but for those of virtual environments and caches."""
    return sorted(
        path
        for path in folder.rglob(pattern)
        if not any(part.startswith(".") for part in path.relative_to(ROOT).parts)
    )


def each(paths: list[Path]) -> pytest.MarkDecorator:
    """One test per file, named after it."""
    return pytest.mark.parametrize("path", paths, ids=name_of)


def name_of(path: Path) -> str:
    return str(path.relative_to(ROOT))


def read(path: Path) -> str:
    return path.read_text(encoding="utf-8")


MODULES = files(PACKAGE)
ALL_FILES = [
    path for folder in (PACKAGE, TESTS, ROOT / "benchmarks", ROOT / "examples")
    for path in files(folder)
]  # fmt: skip


def public_functions(owner: object, module: str) -> Iterator[tuple[str, object]]:
    """Functions, classes and methods without an underscore that `module` itself defines.

    Properties go without a docstring where the name says it all.
    """
    for name, member in vars(owner).items():
        if name.startswith("_") or getattr(member, "__module__", module) != module:
            continue
        if isinstance(member, type):
            yield name, member
            yield from ((f"{name}.{key}", value) for key, value in public_functions(member, module))
        elif inspect.isroutine(inspect.unwrap(getattr(owner, name))):
            yield name, getattr(owner, name)


@each(sorted(set(files(TESTS)) - MAY_PAUSE - set(files(TESTS / "site"))))
def test_a_test_waits_for_conditions(path: Path) -> None:
    """No test pauses for a time that somebody guessed: `wait_for` waits for what is meant."""
    lines = enumerate(read(path).splitlines(), 1)
    assert not [f"line {number}: {line}" for number, line in lines if re.search(r"\bsleep\(", line)]


@each(files(TESTS, "test_*.py"))
def test_every_test_says_what_it_shows(path: Path) -> None:
    """Each test has a docstring: the behaviour, in a sentence."""
    functions = (
        node
        for node in ast.walk(ast.parse(read(path)))
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)
    )
    tests = (node for node in functions if node.name.startswith("test_"))
    assert not [
        f"{test.name} (line {test.lineno})" for test in tests if not ast.get_docstring(test)
    ]


@pytest.fixture(scope="module", autouse=True)
def installed() -> Iterator[None]:
    """What modules of ``contrib`` must find to be imported."""
    with admin_installed():
        yield


@each(MODULES)
def test_public_names_are_documented(path: Path) -> None:
    """Public functions, classes and methods have a docstring, their own or that of a base."""
    name = ".".join(path.with_suffix("").relative_to(ROOT).parts).removesuffix(".__init__")
    module = importlib.import_module(name)
    undocumented = [key for key, it in public_functions(module, name) if not inspect.getdoc(it)]
    assert not undocumented


@each(ALL_FILES)
def test_files_are_short(path: Path) -> None:
    """A module does one thing and can be read in one sitting."""
    count = len(read(path).splitlines())
    assert count <= LINES


def test_every_folder_of_the_package_is_in_the_wheel() -> None:
    """A folder without ``__init__.py`` would be left out of it; the typing marker must be there."""
    folders = {path.parent for path in MODULES}
    assert not [name_of(folder) for folder in folders if not (folder / "__init__.py").is_file()]
    assert (PACKAGE / "py.typed").is_file()


def test_every_other_file_of_the_package_is_in_the_wheel() -> None:
    """Templates, style sheets and the like are there because pyproject.toml names them."""
    tools = tomllib.loads(read(ROOT / "pyproject.toml"))["tool"]["setuptools"]
    named = {
        path
        for package, patterns in tools["package-data"].items()
        for pattern in patterns
        for path in (ROOT / package.replace(".", "/")).glob(pattern)
    }
    others = {
        path for path in PACKAGE.rglob("*") if path.is_file() and path.suffix not in (".py", ".pyc")
    }
    assert others <= named
    assert any(path.suffix == ".html" for path in others)


def test_the_changelog_knows_this_version() -> None:
    """The newest release in CHANGELOG.md is the package's version."""
    releases = re.findall(r"(?m)^## \[?(\d[^\]\s]*)", read(ROOT / "CHANGELOG.md"))
    assert releases[0] == django_tasks_local.__version__
