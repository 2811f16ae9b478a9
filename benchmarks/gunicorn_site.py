"""Requests per second of the example site under gunicorn with four workers.

`whoami` is a view that does nothing with tasks: what is left is gunicorn, Django and the client,
and the ratio to it is the share of the task backend. The tasks enqueued here are due in a day, so
that no pool worker competes for the cores; `poll` asks for one of them and for a finished one.
"""

import contextlib
import http.client
import itertools
import json
import os
from collections.abc import Callable, Iterator

import load
from harness import HERE, Bench, Case, Measured, wait_until
from project import NAMESPACE, destroy
from web import Gunicorn

HOST = "Host: 127.0.0.1"
EXAMPLE = HERE.parent / "examples" / "site"
A_DAY_S = 24 * 3600
numbers = itertools.count()


def main() -> None:
    """Run the site and load it with one kind of request after the other."""
    bench = Bench(__file__, __doc__, rounds=5)
    bench.option("--seconds", 1.0, quick=0.3, help="length of a measurement")
    args = bench.start()
    with example_site() as (gunicorn, visitor):
        waiting = visitor.start(A_DAY_S)
        done = visitor.start(0)
        wait_until(lambda: '"SUCCESSFUL"' in gunicorn.get(f"/jobs/{done}/"), "the first task")
        cases = [
            Case({"request": name}, getting(gunicorn, path, args.seconds))
            for name, path in {
                "whoami": "/whoami/",
                "poll, waiting": f"/jobs/{waiting}/",
                "poll, finished": f"/jobs/{done}/",
            }.items()
        ]
        cases.append(Case({"request": "enqueue"}, lambda: enqueuing(args.seconds)))
        bench.run("the example site", cases, baseline={"request": "whoami"})


@contextlib.contextmanager
def example_site() -> Iterator[tuple[Gunicorn, "Visitor"]]:
    """Run the site under gunicorn with a ring of its own, every worker warm."""
    env = {
        "DJANGO_SETTINGS_MODULE": "example_site.settings",
        "EXAMPLE_NAMESPACE": f"{NAMESPACE}-{next(numbers)}",
        "PYTHONPATH": os.pathsep.join([str(EXAMPLE), str(HERE.parent)]),
    }
    try:
        with Gunicorn("example_site.wsgi", EXAMPLE, env) as gunicorn:
            load.measure(gunicorn.port, f"GET /whoami/ HTTP/1.1\r\n{HOST}", "", 0.3)
            yield gunicorn, Visitor(gunicorn.port)
    finally:
        destroy(env)


def getting(gunicorn: Gunicorn, path: str, seconds: float) -> Callable[[], Measured]:
    """Measure the same GET again and again."""
    return lambda: load.measure(gunicorn.port, f"GET {path} HTTP/1.1\r\n{HOST}", "", seconds)


def enqueuing(seconds: float) -> Measured:
    """Measure the same POST again and again, on its own site: what it enqueues stays waiting."""
    with example_site() as (gunicorn, visitor):
        load.measure(gunicorn.port, *visitor.request(A_DAY_S), 0.3)
        return load.measure(gunicorn.port, *visitor.request(A_DAY_S), seconds)


class Visitor:
    """A browser that has opened the page once and keeps its CSRF cookie."""

    def __init__(self, port: int) -> None:
        self.port = port
        connection = http.client.HTTPConnection("127.0.0.1", port)
        with contextlib.closing(connection):
            connection.request("GET", "/")
            answer = connection.getresponse()
            answer.read()
        self.cookie = (answer.getheader("Set-Cookie") or "").split(";")[0]

    def request(self, delay_s: int) -> tuple[str, str]:
        """Return head and body of the request that starts a short task after `delay_s`."""
        headers = {
            "Host": "127.0.0.1",
            "Content-Type": "application/json",
            "Cookie": self.cookie,
            "X-CSRFToken": self.cookie.partition("=")[2],
        }
        lines = ["POST /jobs/ HTTP/1.1", *(f"{name}: {value}" for name, value in headers.items())]
        return "\r\n".join(lines), json.dumps({"kind": "search", "size": 1, "delay_s": delay_s})

    def start(self, delay_s: int) -> str:
        """Start one task and return its id."""
        head, body = self.request(delay_s)
        line, *headers = head.split("\r\n")
        connection = http.client.HTTPConnection("127.0.0.1", self.port)
        with contextlib.closing(connection):
            connection.request(
                "POST", line.split()[1], body, dict(h.split(": ", 1) for h in headers)
            )
            return str(json.loads(connection.getresponse().read())["id"])


if __name__ == "__main__":
    main()
