"""A process of its own that does what a benchmark asks: a web worker, a reader, a competitor.

Parent and child speak lines of JSON: `{"call": "workloads.burst", "with": {...}}` is answered by
`{"value": ...}` or `{"error": "..."}`. A name is a module of this folder and a function in it. So
the same workload runs in several processes at once, and in virtual environments where this
package is not installed.
"""

import importlib
import json
import os
import select
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Self

HERE = Path(__file__).resolve().parent
# How long before a common start the actors are told of it: all must have read their line by then.
HEAD_START_NS = 20_000_000
# After that a call counts as hung; filling a ring with a million results takes about a minute.
LIMIT_S = 600


class Actor:
    """The parent's side of one child process.

    Args:
        env: Added to the environment; see `project.environment`.
        python: The interpreter, of this or another virtual environment.
    """

    def __init__(self, env: dict[str, str], python: str = sys.executable) -> None:
        self.process = subprocess.Popen(
            [python, str(HERE / "actor.py")],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            env=os.environ | env,
            cwd=HERE,
            text=True,
        )

    def ask(self, name: str, /, *, start_at_ns: int = 0, **arguments: Any) -> None:
        """Send a call without waiting for its answer."""
        assert self.process.stdin is not None
        line = json.dumps({"call": name, "with": arguments, "start_at_ns": start_at_ns})
        self.process.stdin.write(line + "\n")
        self.process.stdin.flush()

    def answer(self) -> Any:
        """Block until the child has answered.

        Raises:
            RuntimeError: The call raised there, or the child ended, or it hangs.
        """
        assert self.process.stdout is not None
        # One line is under way at a time, so nothing can be waiting in Python's own buffer.
        if not select.select([self.process.stdout], [], [], LIMIT_S)[0]:
            raise RuntimeError(f"no answer within {LIMIT_S} s")
        line = self.process.stdout.readline()
        if not line:
            raise RuntimeError(f"the process ended with status {self.process.wait()}")
        answer = json.loads(line)
        if "error" in answer:
            raise RuntimeError(answer["error"])
        return answer["value"]

    def call(self, name: str, /, **arguments: Any) -> Any:
        """Ask and wait."""
        self.ask(name, **arguments)
        return self.answer()

    def close(self) -> None:
        """Let the child end as a script does, with its exit handlers."""
        assert self.process.stdin is not None
        assert self.process.stdout is not None
        self.process.stdin.close()
        try:
            self.process.wait(timeout=30)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()
        self.process.stdout.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc_info: object) -> None:
        self.close()


def together(actors: Sequence[Actor], name: str, /, **arguments: Any) -> list[Any]:
    """Start the same call in all actors at the same moment, and return the answers."""
    start_at_ns = time.monotonic_ns() + HEAD_START_NS
    for actor in actors:
        actor.ask(name, start_at_ns=start_at_ns, **arguments)
    return [actor.answer() for actor in actors]


def serve() -> None:
    """Read calls from stdin until it closes: the child's side."""
    # What a task or library prints must not end up between the answers.
    answers = os.fdopen(os.dup(sys.stdout.fileno()), "w")
    os.dup2(sys.stderr.fileno(), sys.stdout.fileno())
    if "DJANGO_SETTINGS_MODULE" in os.environ:
        import django

        django.setup()
    for line in sys.stdin:
        request = json.loads(line)
        pause_ns = request["start_at_ns"] - time.monotonic_ns()
        if pause_ns > 0:
            time.sleep(pause_ns / 1e9)
        module, _, function = request["call"].rpartition(".")
        try:
            call = getattr(importlib.import_module(module), function)
            answer = {"value": call(**request["with"])}
        except Exception as error:
            answer = {"error": f"{type(error).__name__}: {error}"}
        answers.write(json.dumps(answer) + "\n")
        answers.flush()


if __name__ == "__main__":
    serve()
