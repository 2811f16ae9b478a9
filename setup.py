"""The one thing that pyproject.toml cannot say: README's links, absolute for a package index."""

import re
import tomllib
from pathlib import Path

ROOT = Path(__file__).parent

_LINK = re.compile(r"(?P<image>!?)\[(?P<text>[^\]]*)\]\((?!https?://|#)(?P<path>[^)\s]+)\)")


def long_description() -> str:
    """Return README.md with each relative link made one to this version's tag in the repository."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["project"]
    source = (ROOT / "django_tasks_local" / "__init__.py").read_text("utf-8")
    version = re.search(r'^__version__ = "(.+)"$', source, re.MULTILINE)
    assert version

    def absolute(found: re.Match[str]) -> str:
        kind = "raw" if found["image"] else "blob"
        address = f"{project['urls']['Repository']}/{kind}/v{version[1]}/{found['path']}"
        return f"{found['image']}[{found['text']}]({address})"

    return _LINK.sub(absolute, (ROOT / "README.md").read_text("utf-8"))


if __name__ == "__main__":
    from setuptools import setup

    setup(long_description=long_description(), long_description_content_type="text/markdown")
