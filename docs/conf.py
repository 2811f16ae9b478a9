"""How Sphinx makes the documentation site from these pages: `make docs`.

The pages are plain Markdown that reads well where the repository is shown. What a site needs
besides is made here: the table of contents from the lists in index.md, and absolute addresses
for links that leave this folder.
"""

import re
import tomllib
from pathlib import Path
from typing import Any

import django
from django.conf import settings
from sphinx.application import Sphinx

HERE = Path(__file__).parent
ROOT = HERE.parent
PROJECT: dict[str, Any] = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["project"]
REPOSITORY = PROJECT["urls"]["Repository"]

# autodoc imports the backends, and Django's classes want settings.
settings.configure()
django.setup()

project = "django-tasks-local"
author = copyright = PROJECT["authors"][0]["name"]
release = version = __import__("django_tasks_local").__version__

extensions = ["myst_parser", "sphinx.ext.autodoc", "sphinx.ext.napoleon"]
root_doc = "index"
html_theme = "furo"
html_title = f"{project} {version}"
html_theme_options = {
    "source_repository": REPOSITORY,
    "source_branch": "main",
    "source_directory": "docs/",
}
html_copy_source = False

myst_heading_anchors = 4  # as deep as pages link; the anchors are those of GitHub
myst_enable_extensions = ["deflist"]

default_role = "py:obj"  # docstrings write `name`; a link where the name is on the site
autodoc_member_order = "bysource"
autodoc_typehints = "signature"
autodoc_preserve_defaults = True
napoleon_google_docstring = True
napoleon_numpy_docstring = False
napoleon_use_ivar = True

_HEADING = re.compile(r"^## (.+)$", re.MULTILINE)
_ENTRY = re.compile(r"^- (?:[\w ]+)?\[[^\]]+\]\(([\w/-]+)\.md\)", re.MULTILINE)
_LEAVING = re.compile(r"\]\((?P<target>(?:\.\./)+[^)#\s]+)(?P<anchor>#[^)\s]*)?\)")


def contents(index: str) -> str:
    """Return the hidden tables of contents for what index.md lists, one for each heading."""
    _, *parts = _HEADING.split(index)
    return "".join(
        f"\n```{{toctree}}\n:hidden:\n:caption: {title}\n\n" + "\n".join(pages) + "\n```\n"
        for title, text in zip(parts[::2], parts[1::2], strict=True)
        if (pages := _ENTRY.findall(text))
    )


def with_addresses(page: Path, text: str) -> str:
    """Return a page whose links to files outside this folder lead to the repository."""

    def replace(found: re.Match[str]) -> str:
        target = (page.parent / found["target"]).resolve()
        if target.is_relative_to(HERE):
            return found[0]
        path = target.relative_to(ROOT).as_posix()
        return f"]({REPOSITORY}/blob/main/{path}{found['anchor'] or ''})"

    return _LEAVING.sub(replace, text)


def read(app: Sphinx, name: str, source: list[str]) -> None:
    """Complete a page that Sphinx has read; Sphinx then takes what is in ``source``."""
    text = with_addresses(Path(app.env.doc2path(name)), source[0])
    source[0] = text + contents(text) if name == root_doc else text


def setup(app: Sphinx) -> None:
    """Let Sphinx call `read` for each page."""
    app.connect("source-read", read)
