"""Four web workers, one pool, two `kill -9`: check that every task is accounted for.

    python examples/demo.py            then look at the page until Ctrl-C
    python examples/demo.py --once     end by itself; exit status 0 if everything held, else 1

Everything happens over HTTP against a plain gunicorn, as with your own site. The demo starts it on
a free port and removes every trace at the end.
"""

import argparse
import importlib.util
import math
import os
import re
import signal
import sys
import time
from dataclasses import dataclass, field
from typing import Any

from demo_paper import Paper
from demo_stage import ASK_AT_ONCE, ENDING, WEB_WORKERS, Stage, StageError, wait_for

FIRST_ACT = {"primes": 3.0, "mandelbrot": 3.0, "pi": 3.0, "search": 3.0}  # seconds of one core
VICTIM_S = 12.0  # killed long before; this is only the time we have for it
SECOND_ACT = {"primes": 2.0, "mandelbrot": 2.0, "pi": 2.0, "search": 2.0}
ACT_TIMEOUT_S = 60.0  # a minute is hung, not slow
CALIBRATION_S = 0.085  # how long `_speed` took where one unit of work took a tenth of a second
FINISHED = ("SUCCESSFUL", "FAILED")


@dataclass
class Row:
    """One task as its web workers told us about it."""

    kind: str
    id: str
    enqueuer: int
    answerers: set[int] = field(default_factory=set)
    saw_running: set[int] = field(default_factory=set)
    facts: dict[str, Any] = field(default_factory=lambda: {"status": "READY", "worker": None})
    trouble: str = ""  # the first answer that told us nothing

    @property
    def status(self) -> str:
        return str(self.facts["status"])

    @property
    def is_finished(self) -> bool:
        return self.status in FINISHED

    @property
    def pool_pid(self) -> int | None:
        if self.facts["worker"] is None:
            return None
        _alias, pid, _number = self.facts["worker"].rsplit("-", 2)
        return int(pid)

    def learn(self, answer: dict[str, Any]) -> None:
        """Record what one web worker said."""
        self.answerers.add(answer["web_pid"])
        if "status" not in answer:
            self.trouble = self.trouble or f"web {answer['web_pid']}: {answer['error']}"
            return
        if answer["status"] == "RUNNING":
            self.saw_running.add(answer["web_pid"])
        # Answers asked for at the same moment may arrive in any order.
        if not self.is_finished:
            self.facts = answer


class Demo:
    """The story, act by act."""

    def __init__(self, stage: Stage, paper: Paper) -> None:
        self.stage = stage
        self.client = stage.client
        self.paper = paper
        self.rows: list[Row] = []
        self.units_per_s = 10 * CALIBRATION_S / _speed()

    def play(self) -> None:
        """Tell the whole story; the paper counts what does not hold."""
        workers = self.stage.web_workers()
        self.paper.say(f"  {self.client.url}  gunicorn with web workers {_pids(workers)}")
        self.first_act()
        self.second_act(workers)

    def first_act(self) -> None:
        """Show that each web worker knows each running task, whichever of them took it."""
        self.paper.head("1. Four tasks for the processor, started over HTTP")
        rows = [self.start(kind, seconds) for kind, seconds in FIRST_ACT.items()]
        self.watch(rows, lambda: all(row.is_finished for row in rows), "the first tasks finish")
        self.show(rows)
        self.check_seen_by_all(rows)
        self.check_successful(rows)

    def second_act(self, workers: list[int]) -> None:
        """Kill a web worker and a pool worker while tasks run."""
        self.paper.head("2. Five more, and kill -9 for a web worker and a pool worker")
        victim = self.start("primes", VICTIM_S, priority=100)
        others = [self.start(kind, seconds) for kind, seconds in SECOND_ACT.items()]
        rows = [victim, *others]
        self.watch(rows, lambda: len(victim.saw_running) == WEB_WORKERS, "the victim runs")
        web_victim = others[-1].enqueuer
        self.kill(web_victim, f"web worker that took “{others[-1].kind}” and others")
        self.kill(victim.pool_pid, f"pool worker that runs “{victim.kind}” with priority 100")
        now = self.stage.web_workers(without=web_victim)
        self.watch(rows, lambda: all(row.is_finished for row in rows), "the other tasks finish")
        self.ask_everyone(now)
        self.show(rows)
        self.check_victim(victim)
        self.check_seen_by_all(others)
        self.check_successful(others)
        newcomers = sorted(set(now) - set(workers))
        self.paper.check(
            bool(newcomers) and all(set(now) <= row.answerers for row in self.rows),
            f"all {len(self.rows)} tasks, old and new, are known to all {len(now)} web workers, "
            f"also to {_pids(newcomers)}, which has just been born",
        )

    def start(self, kind: str, seconds: float, priority: int = 0) -> Row:
        """Enqueue one task that takes this many seconds on one core."""
        size = max(1, round(seconds * self.units_per_s))
        wish = {"kind": kind, "size": min(size, 400), "priority": priority}
        answer = self.client.post("jobs/", wish)
        row = Row(kind, answer["id"], answer["web_pid"])
        self.rows.append(row)
        return row

    def watch(self, rows: list[Row], until: Any, what: str) -> None:
        """Ask all web workers about each unfinished task, until a condition holds."""

        def look() -> bool:
            self.ask([row for row in rows if not row.is_finished])
            running = [row for row in rows if row.status == "RUNNING"]
            ended = sum(row.is_finished for row in rows)
            bars = "  ".join(f"{row.kind} {_percent(row)}" for row in running)
            self.paper.passing(f"{ended} of {len(rows)} finished, running: {bars}")
            return bool(until())

        wait_for(look, what, ACT_TIMEOUT_S)
        self.stage.note_shared_memory()

    def ask(self, rows: list[Row]) -> None:
        """Ask once per web worker for each task, or once if all workers have seen it run."""
        asked = [
            row
            for row in rows
            for _ in range(1 if len(row.saw_running) >= WEB_WORKERS else ASK_AT_ONCE)
        ]
        answers = self.client.ask([f"jobs/{row.id}/" for row in asked])
        for row, answer in zip(asked, answers, strict=True):
            row.learn(answer)

    def ask_everyone(self, workers: list[int]) -> None:
        """Ask for all tasks, finished ones too, until each of these workers has answered."""

        def look() -> bool:
            missing = [row for row in self.rows if not set(workers) <= row.answerers]
            answers = self.client.ask([f"jobs/{row.id}/" for row in missing] * 2)
            for row, answer in zip(missing * 2, answers, strict=True):
                row.learn(answer)
            return not missing

        wait_for(look, "every web worker answers for every task", ACT_TIMEOUT_S)

    def kill(self, pid: int | None, who: str) -> None:
        """Kill a process with SIGKILL, for which no process can prepare."""
        if pid is None:
            raise StageError(f"nobody to kill: {who}")
        os.kill(pid, signal.SIGKILL)
        self.paper.strike(f"kill -9 {pid:<7} the {who}")

    def show(self, rows: list[Row]) -> None:
        """Print the table."""
        head = ["task", "enqueued by", "run by", "seen RUNNING by web", "status", "result"]
        self.paper.table([head, *(self.cells(row) for row in rows)])

    def cells(self, row: Row) -> list[str]:
        """Return one line of the table."""
        return [
            row.kind,
            f"web {row.enqueuer}",
            f"pool {row.pool_pid}" if row.pool_pid else "",
            _pids(row.saw_running),
            row.status,
            self.outcome(row)[1],
        ]

    def outcome(self, row: Row) -> tuple[bool, str]:
        """Return whether the result is right, and the result in a few words."""
        if row.facts.get("error"):
            return False, row.facts["error"]["type"]
        result = row.facts.get("result") or {}
        match row.kind:
            case "primes":
                # Rosser and Schoenfeld 1962: n / ln n < π(n) < 1.25506 n / ln n from 17 on.
                least = result["below"] / math.log(result["below"])
                holds = least < result["primes"] < 1.25506 * least
                return holds, f"{result['primes']:,} below {result['below']:,}"
            case "mandelbrot":
                picture = self.client.read(result["picture"].lstrip("/"))
                holds = picture.startswith(b"\x89PNG") and len(picture) == result["bytes"]
                return holds, f"a PNG of {len(picture):,} bytes"
            case "pi":
                return result["error"] < 0.01, f"π ≈ {result['pi']:.5f}"
            case _:
                return result["hits"] > 0, f"{result['hits']} hits in {result['files']:,} files"

    def check_seen_by_all(self, rows: list[Row]) -> None:
        """Check that at least four web workers answered; later ones may have looked too."""
        unseen = [row.kind for row in rows if len(row.saw_running) < WEB_WORKERS]
        strange = [f"{row.kind}: {row.trouble}" for row in self.rows if row.trouble]
        self.paper.check(
            not unseen and not strange,
            f"each of these {len(rows)} tasks was seen RUNNING by {WEB_WORKERS} web workers, "
            "and none ever said “no such task”",
            "; ".join([*strange, *(f"{kind} by fewer" for kind in unseen)]),
        )

    def check_successful(self, rows: list[Row]) -> None:
        bad = [r.kind for r in rows if r.status != "SUCCESSFUL" or not self.outcome(r)[0]]
        self.paper.check(
            not bad, f"{len(rows)} of {len(rows)} SUCCESSFUL, results are right", ", ".join(bad)
        )

    def check_victim(self, victim: Row) -> None:
        error = victim.facts.get("error") or {"type": victim.status, "message": "no error"}
        told = f"{error['type']}: {error['message']}"
        names_signal = re.search(r"SIGKILL|signal 9", told)
        self.paper.check(
            victim.status == "FAILED" and error["type"] == "WorkerLost" and bool(names_signal),
            f"the killed worker's task is FAILED, and says why: {told}",
        )


def _speed() -> float:
    """Time a fixed piece of work, so that the tasks take a few seconds on any machine."""
    started = time.perf_counter()
    sum(number * number for number in range(2_000_000))
    return time.perf_counter() - started


def _pids(pids: Any) -> str:
    return " ".join(map(str, sorted(pids)))


def _percent(row: Row) -> str:
    fraction = (row.facts.get("progress") or {}).get("fraction")
    return "…" if fraction is None else f"{fraction:.0%}"


def _serve(stage: Stage, paper: Paper) -> None:
    paper.head("3. Your turn")
    paper.say(f"  {stage.client.url} is there until Ctrl-C.")
    stage.gunicorn.wait()
    raise StageError(f"gunicorn ended with status {stage.gunicorn.returncode}")


def _run(stage: Stage, paper: Paper, once: bool) -> None:
    try:
        Demo(stage, paper).play()
        if not once:
            _serve(stage, paper)
    except StageError as error:
        paper.check(False, str(error))
    except KeyboardInterrupt:
        if once:
            paper.check(False, "interrupted before the end")
        else:
            paper.say("  Stopping.")
    if paper.failures:
        paper.head("The last lines of the log")
        paper.say(stage.log_tail())


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--once", action="store_true", help="end after the story")
    parser.add_argument("--port", type=int, default=0, help="of 127.0.0.1; default: a free one")
    return parser.parse_args()


def main() -> int:
    """Run the demo and return its exit status."""
    arguments = _arguments()
    absent = [n for n in ("django_tasks_local", "gunicorn") if not importlib.util.find_spec(n)]
    if absent:
        print(f"Not installed here: {', '.join(absent)}. `make demo` installs all it needs.")
        return 1
    for number in ENDING:
        signal.signal(number, signal.default_int_handler)  # a closed terminal ends it tidily too
    paper = Paper()
    paper.head("django-tasks-local: one pool, several web workers, nothing else")
    try:
        with Stage(arguments.port) as stage:
            _run(stage, paper, arguments.once)
    except StageError as error:
        paper.check(False, str(error))
    else:
        paper.head("The end")
        gone = "no process is left, and nothing in /dev/shm"
        paper.check(not stage.leftovers, gone, "; ".join(stage.leftovers))
    return 1 if paper.failures else 0


if __name__ == "__main__":
    sys.exit(main())
