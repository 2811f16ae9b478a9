"""Programs that use the tests' site and are no servers."""

import os
import subprocess
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from tests.process.client import environment
from tests.support import LONG_TIMEOUT, ROOT


@contextmanager
def running(
    namespace: str,
    arguments: Sequence[str],
    *,
    cwd: Path | None = None,
    before: Sequence[str] = (),
    **env: str,
) -> Iterator[subprocess.Popen[str]]:
    """Provide a Python program with the tests' site as its project."""
    merged = os.environ | environment(namespace) | {"PYTHONPATH": str(ROOT)} | env
    command = [*before, sys.executable, *arguments]
    with subprocess.Popen(
        command, env=merged, cwd=cwd, text=True, stdin=subprocess.PIPE,
        stdout=subprocess.PIPE, stderr=subprocess.PIPE,
    ) as process:  # fmt: skip
        try:
            yield process
        finally:
            process.kill()


def run(
    namespace: str, arguments: Sequence[str], *, text: str = "", **options: Any
) -> tuple[int, str, str]:
    """Run it to its end, fed with `text`; return exit status, output and standard error."""
    with running(namespace, arguments, **options) as process:
        out, err = process.communicate(text, timeout=LONG_TIMEOUT)
        return process.returncode, out, err
