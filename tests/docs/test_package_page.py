"""What a package index shows: README with links that lead somewhere from there, and addresses."""

import ast
import re
import runpy
import tomllib
from pathlib import Path

import django_tasks_local
from tests.docs.pages import links, read
from tests.support import ROOT

PROJECT = tomllib.loads(read(ROOT / "pyproject.toml"))["project"]
REPOSITORY = PROJECT["urls"]["Repository"]


def page(directory: Path) -> Path:
    """README as the wheel's and the source distribution's metadata hold it."""
    text = runpy.run_path(str(ROOT / "setup.py"), run_name="setup")["long_description"]()
    path = directory / "README.md"
    path.write_text(text, encoding="utf-8")
    return path


def test_no_link_is_dead_on_a_package_index(tmp_path: Path) -> None:
    """Each link of README is absolute there; those into the repository name a file of this tag."""
    tag = f"v{django_tasks_local.__version__}"
    inside = re.compile(rf"{re.escape(REPOSITORY)}/(blob|raw)/{re.escape(tag)}/([^#]+)")
    targets = list(links(page(tmp_path)))
    assert len(targets) == len(list(links(ROOT / "README.md")))
    for target in targets:
        assert target.startswith("https://"), target
        if target.startswith(REPOSITORY):
            found = inside.match(target)
            assert found, target
            assert (ROOT / found[2]).exists(), target
    assert any("/raw/" in target for target in targets), "the picture"


def test_the_address_stands_in_one_place() -> None:
    """All of the project's addresses begin with the repository's, and no other file repeats it."""
    assert all(url.startswith(REPOSITORY) for url in PROJECT["urls"].values())
    owner = REPOSITORY.removeprefix("https://").rpartition("/")[0]
    texts = [
        path for folder in (ROOT / "docs", ROOT / "django_tasks_local") for path in source(folder)
    ]
    assert not [
        path for path in [*texts, *ROOT.glob("*.md"), ROOT / "setup.py"] if owner in read(path)
    ]


def test_the_classifiers_are_what_the_workflow_tests() -> None:
    """Each Python and Django that is named is tested; the oldest Python is what is required."""
    workflow = read(ROOT / ".github" / "workflows" / "ci.yml")
    for label, prefix in {
        "python": "Programming Language :: Python :: ",
        "django": "Framework :: Django :: ",
    }.items():
        found = re.search(rf"^        {label}: (\[.+\])$", workflow, re.MULTILINE)
        assert found
        named = [name.removeprefix(prefix) for name in PROJECT["classifiers"] if prefix in name]
        versions = [name for name in named if re.fullmatch(r"\d+\.\d+", name)]
        assert versions == ast.literal_eval(found[1])
        if label == "python":
            assert PROJECT["requires-python"] == f">={versions[0]}"


def source(folder: Path) -> list[Path]:
    return [*folder.rglob("*.md"), *folder.rglob("*.py")]
